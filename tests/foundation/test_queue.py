"""The queue's settings: nothing waits for ever, nothing relies on the broker's memory."""

import ssl

import pytest
from celery import Celery
from redis.connection import SSLConnection

from foundation.queue import MAX_COUNTDOWN_S, VISIBILITY_TIMEOUT_S, Role, celery_settings

REDIS = "redis://127.0.0.1:6379/0"
REDIS_OVER_TLS = "rediss://127.0.0.1:6380/0"
ROLES = list(Role)


def settings(url: str = REDIS, role: Role = Role.CONSUMER) -> dict[str, object]:
    return celery_settings(url, default_queue="q", role=role)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("url", [REDIS, REDIS_OVER_TLS])
def test_messages_are_json_and_nothing_is_kept(url: str, role: Role) -> None:
    """Only JSON is read or written and no result is stored, where it could be seen or could grow."""
    found = settings(url, role)

    assert found["task_serializer"] == "json"
    assert found["accept_content"] == ["json"]
    assert found["result_backend"] is None
    assert found["task_ignore_result"] is True


@pytest.mark.parametrize("role", ROLES)
def test_unacknowledged_work_comes_back(role: Role) -> None:
    """Messages are acknowledged after the work, one at a time, and a poison message does not loop."""
    found = settings(role=role)

    assert found["task_acks_late"] is True
    assert found["task_reject_on_worker_lost"] is False
    assert found["worker_prefetch_multiplier"] == 1


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("url", [REDIS, REDIS_OVER_TLS])
def test_every_wait_for_redis_is_bounded(url: str, role: Role) -> None:
    """A half-open connection cannot block a process: connecting and reading both time out."""
    transport = settings(url, role)["broker_transport_options"]

    assert isinstance(transport, dict)
    assert 0 < transport["socket_connect_timeout"] <= 3
    assert 0 < transport["socket_timeout"] <= 30


def test_publisher_gives_up_at_once() -> None:
    """A web process neither retries a publication nor waits long for a connection."""
    found = settings(role=Role.PUBLISHER)
    transport = found["broker_transport_options"]

    assert isinstance(transport, dict)
    assert found["task_publish_retry"] is False
    assert transport["max_retries"] == 0
    assert transport["socket_timeout"] <= 1
    assert transport["socket_connect_timeout"] <= 1


def test_visibility_timeout_is_one_for_all() -> None:
    """Every app on one Redis has the same visibility timeout, since the shortest wins for all."""
    found = {str(settings(role=role)["broker_transport_options"]["visibility_timeout"]) for role in ROLES}  # type: ignore[index]

    assert found == {str(VISIBILITY_TIMEOUT_S)}


def test_countdowns_stay_far_below_the_visibility_timeout() -> None:
    """A message that waits in a worker's memory is never delivered again because it waits."""
    assert MAX_COUNTDOWN_S * 5 <= VISIBILITY_TIMEOUT_S


@pytest.mark.parametrize(
    ("url", "verified"),
    [
        (REDIS_OVER_TLS, True),
        (f"{REDIS_OVER_TLS}?ssl_ca_certs=/ca.pem", True),
        (f"{REDIS_OVER_TLS}?ssl_cert_reqs=CERT_REQUIRED", True),
        (f"{REDIS_OVER_TLS}?ssl_cert_reqs=CERT_NONE", False),
        (f"{REDIS_OVER_TLS}?ssl_cert_reqs=none", False),
    ],
)
def test_certificates_are_verified_unless_the_url_says_otherwise(url: str, verified: bool) -> None:
    """Celery connects with the rule that a plain Redis client has."""
    app = Celery(set_as_current=False)
    app.conf.update(settings(url))

    tls = app.connection_for_write().ssl

    assert SSLConnection(**tls).cert_reqs == (ssl.CERT_REQUIRED if verified else ssl.CERT_NONE)


@pytest.mark.parametrize("role", ROLES)
def test_every_setting_is_one_that_celery_knows(role: Role) -> None:
    """No setting is misspelt: Celery would pass over it in silence."""
    known = set(Celery(set_as_current=False).conf.table(with_defaults=True))

    assert set(settings(role=role)) - known == set()
