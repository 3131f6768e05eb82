"""Plain Redis clients built from the broker's URL. Every wait is bounded, and an outage ends by itself."""

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

BROKER_SCHEMES: Final = ("redis", "rediss")
CONNECT_TIMEOUT_S: Final = 1.0
READ_TIMEOUT_S: Final = 1.0
CERT_REQS: Final = "ssl_cert_reqs"
CERT_RULES: Final = ("none", "optional", "required")


def check_broker_url(url: str) -> None:
    """Raise `ValueError` if the broker's URL cannot be used. The error never quotes the URL."""
    parts = urlsplit(url)
    if parts.scheme not in BROKER_SCHEMES:
        raise ValueError("expected redis:// or rediss://, no other broker is supported")
    if not _has_valid_port(url):
        raise ValueError("expected a port between 1 and 65535")
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError("expected the number of a Redis database after the host, as in redis://host:6379/0")
    options = dict(parse_qsl(parts.query))
    if parts.scheme == "redis" and any(name.startswith("ssl_") for name in options):
        raise ValueError("expected rediss://, since ssl_ options mean nothing to redis://")
    if CERT_REQS in options and _cert_rule(options[CERT_REQS]) not in CERT_RULES:
        raise ValueError(f"{CERT_REQS}: expected CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE")


def checks_certificates(url: str) -> bool:
    """Return whether a TLS connection to this broker verifies the server, which is the default."""
    return _cert_rule(dict(parse_qsl(urlsplit(url).query)).get(CERT_REQS, "required")) != "none"


def redis_client(
    url: str, *, read_timeout_s: float = READ_TIMEOUT_S, connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> Redis:
    """Create a thread-safe client for the broker's Redis.

    A command is sent again once, at once and on a new connection, if its connection turns out to be dead,
    as every pooled one is after a restart of Redis, or to lead to a server that has become a replica. A
    command that timed out is not sent again, so no call takes longer than both timeouts twice.
    """
    return Redis.from_url(
        _spelled_for_redis_py(url),
        socket_timeout=read_timeout_s,
        socket_connect_timeout=connect_timeout_s,
        retry=Retry(NoBackoff(), retries=1, supported_errors=(RedisConnectionError, ReadOnlyError)),
    )


def _spelled_for_redis_py(url: str) -> str:
    """Celery reads `CERT_NONE` and `none`, redis-py only the latter."""
    parts = urlsplit(url)
    options = [
        (name, _cert_rule(value) if name == CERT_REQS else value) for name, value in parse_qsl(parts.query)
    ]
    return urlunsplit(parts._replace(query=urlencode(options)))


def _cert_rule(value: str) -> str:
    return value.lower().removeprefix("cert_")


def _has_valid_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
