"""One pause for all workers: when the Management API says 429, nobody calls it until it said to come back."""

from datetime import timedelta
from typing import Final, Protocol

import redis
import structlog

from foundation.broker import redis_client
from worker.errors import PausedError

log = structlog.get_logger()

KEY: Final = "gangway:api:paused"


class Gate(Protocol):
    """May the Management API be called now?"""

    def check(self) -> None:
        """Raise `PausedError` while calls are paused."""

    def pause(self, wait: timedelta) -> None:
        """Pause everyone's calls for so long."""


class RedisGate:
    """The pause as an expiring key. Without Redis the gate stands open: the API still says 429 itself."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client

    @classmethod
    def at(cls, url: str) -> "RedisGate":
        return cls(redis_client(url))

    def check(self) -> None:
        try:
            remaining_ms = self._redis.pttl(KEY)
        except redis.RedisError as exc:
            log.warning("gate.unreadable", reason=type(exc).__name__)
            return
        if remaining_ms > 0:
            raise PausedError("calls are paused: the API is limiting", retry_after_s=remaining_ms / 1000)

    def pause(self, wait: timedelta) -> None:
        milliseconds = max(int(wait.total_seconds() * 1000), 1)
        try:
            if self._redis.pttl(KEY) < milliseconds:  # the longest pause that was asked for holds
                self._redis.set(KEY, "1", px=milliseconds)
        except redis.RedisError as exc:
            log.warning("gate.not_paused", reason=type(exc).__name__)


def gate_for(broker_url: str) -> Gate:
    """Return the gate that all workers on this broker share."""
    return RedisGate.at(broker_url)
