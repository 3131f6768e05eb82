"""What the limits to the Management API hold back, as far as Redis can be asked."""

from typing import Final

from pydantic import BaseModel
from redis import RedisError

from foundation.broker import redis_client
from worker.cli.needed import StatusSettings
from worker.limits import Breaker, RedisLimits

TIMEOUT_S: Final = 0.5


class LimitsView(BaseModel):
    """What holds back calls of the Management API; everything is null if `unknown_because` says why."""

    breaker: Breaker | None = None
    """`open` while the API fails for everyone: single calls try it until one succeeds."""
    paused_for_s: float | None = None
    """How long it asked to be left alone; 0 if it did not."""
    tokens: float | None = None
    """How many calls may be made at once now; null without `GANGWAY_API_RATE`."""
    unknown_because: str | None = None

    @property
    def reasons(self) -> list[str]:
        """Why calls are held back, in words."""
        reasons = []
        if self.breaker is Breaker.OPEN:
            reasons.append("it fails for everyone, and single calls try it again")
        if self.paused_for_s:
            reasons.append(f"it asked for a pause, {self.paused_for_s:.0f} s of which are left")
        if self.tokens is not None and self.tokens < 1:
            reasons.append("the calls that GANGWAY_API_RATE allows are used up")
        return reasons


def read_limits(settings: StatusSettings) -> LimitsView:
    """Ask Redis, with little patience. What cannot be asked is said, and no error."""
    if settings.broker_url is None:
        return LimitsView(unknown_because="GANGWAY_BROKER_URL is not set")
    try:
        url = settings.broker_url.get_secret_value()
        client = redis_client(url, read_timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S)
        with client:
            state = RedisLimits(client, rate=settings.api_rate, burst=settings.api_burst).state()
    except (RedisError, ValueError) as exc:  # their words may quote the URL
        return LimitsView(unknown_because=f"Redis cannot be asked ({type(exc).__name__})")
    return LimitsView(breaker=state.breaker, paused_for_s=state.paused_for_s, tokens=state.tokens)
