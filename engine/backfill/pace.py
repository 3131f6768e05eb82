"""Keeps all workers together within a sync's rate limit, by a moving window in Redis."""

import time
from typing import Final
from uuid import UUID

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage, Storage
from limits.strategies import MovingWindowRateLimiter

from engine.providers.catalogue import RateLimit

NAMESPACE: Final = "engine"
SHORTEST_WAIT_S: Final = 0.01


class Pace:
    """Grants requests. What is not granted says how long to wait before asking again."""

    def __init__(self, storage: Storage) -> None:
        self._limiter = MovingWindowRateLimiter(storage)

    @classmethod
    def on_redis(cls, url: str) -> "Pace":
        return cls(RedisStorage(url, socket_timeout=2.0, socket_connect_timeout=1.0))

    def wait_s(self, sync_id: UUID, rate_limit: RateLimit) -> float:
        """Zero, and the request is counted; or the time until the oldest one leaves the window."""
        item = RateLimitItemPerSecond(rate_limit.allowed_requests, rate_limit.interval, NAMESPACE)
        if self._limiter.hit(item, str(sync_id)):
            return 0.0
        reset_at = self._limiter.get_window_stats(item, str(sync_id)).reset_time
        return max(reset_at - time.time(), SHORTEST_WAIT_S)
