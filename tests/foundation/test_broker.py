"""Clients of the broker's Redis: one reading of the URL for all of them."""

import ssl

import pytest

from engine.backfill.pace import Pace
from foundation.broker import check_broker_url, checks_certificates, redis_client
from worker.limits import RedisLimits

TLS = "rediss://:a-password@127.0.0.1:1/0"
RULES = {
    "CERT_NONE": ssl.CERT_NONE,
    "none": ssl.CERT_NONE,
    "CERT_OPTIONAL": ssl.CERT_OPTIONAL,
    "optional": ssl.CERT_OPTIONAL,
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "required": ssl.CERT_REQUIRED,
    "Required": ssl.CERT_REQUIRED,
}


@pytest.mark.parametrize(("spelling", "rule"), RULES.items(), ids=RULES.keys())
def test_both_spellings_of_a_certificate_rule_work(spelling: str, rule: ssl.VerifyMode) -> None:
    """Celery's spelling and redis-py's mean the same, to every client that is built from the URL."""
    url = f"{TLS}?ssl_cert_reqs={spelling}"

    check_broker_url(url)
    client = redis_client(url)

    assert client.connection_pool.make_connection().cert_reqs == rule
    assert checks_certificates(url) is (rule != ssl.CERT_NONE)


def test_certificates_are_verified_by_default() -> None:
    """A URL that names no rule gets the strict one."""
    assert redis_client(TLS).connection_pool.make_connection().cert_reqs == ssl.CERT_REQUIRED
    assert checks_certificates(TLS)


@pytest.mark.parametrize("spelling", RULES)
def test_limits_and_pace_read_the_url_alike(spelling: str) -> None:
    """Both build their clients from it without an error of the URL's spelling."""
    url = f"{TLS}?ssl_cert_reqs={spelling}"

    limits, pace = RedisLimits(redis_client(url)), Pace.on_redis(url)

    for client in (limits._redis, pace._take.registered_client):
        assert client.connection_pool.make_connection().cert_reqs == RULES[spelling]


def test_every_wait_is_bounded() -> None:
    """Connecting, reading and trying again all end."""
    connection = redis_client("redis://127.0.0.1:1/0").connection_pool.make_connection()

    assert 0 < connection.socket_timeout <= 1
    assert 0 < connection.socket_connect_timeout <= 1
    assert connection.retry.get_retries() == 1


REFUSED = {
    "another broker": ("amqp://guest:hunter2@h//", "redis://"),
    "no scheme": ("hunter2:6379/0", "redis://"),
    "a socket": ("redis+socket:///hunter2.sock", "redis://"),
    "port too large": ("redis://:hunter2@h:99999/0", "port"),
    "port no number": ("redis://:hunter2@h:hunter2/0", "port"),
    "database no number": ("redis://h/hunter2", "database"),
    "TLS options without TLS": ("redis://:hunter2@h/0?ssl_cert_reqs=none", "rediss://"),
    "unknown certificate rule": ("rediss://h/0?ssl_cert_reqs=hunter2", "CERT_REQUIRED"),
}


@pytest.mark.parametrize(("url", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_urls_are_refused_in_one_line(url: str, said: str) -> None:
    """The refusal says what was expected and quotes nothing of the URL."""
    with pytest.raises(ValueError, match=said) as refused:
        check_broker_url(url)

    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://h", "redis://h/", "redis://u:p@h:6379/15", TLS])
def test_usual_urls_are_accepted(url: str) -> None:
    """With or without port, login and database."""
    check_broker_url(url)
