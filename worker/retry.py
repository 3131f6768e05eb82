"""When to try again and when to look again: pure functions of what happened and how long ago."""

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

BASE_S: Final = 1.0
CAP_S: Final = 60.0
MAX_RETRY_AFTER_S: Final = 3600.0
POLL_SHARE: Final = 0.1
POLL_MIN_S: Final = 1.0
POLL_MAX_S: Final = 300.0
JITTER: Final = 0.1

Random = Callable[[], float]
"""A number in [0, 1)."""


def retry_delay(
    attempt: int, *, retry_after_s: float | None = None, rand: Random = random.random
) -> timedelta:
    """Exponential backoff with full jitter; what the server asks for wins, with a little jitter on top.

    `attempt` counts from 1, the try that has just failed. A server that asks for no wait at all gets the
    backoff, so that it is never called in a tight loop.
    """
    if retry_after_s is not None and retry_after_s > 0:
        wanted = min(max(retry_after_s, BASE_S / 10), MAX_RETRY_AFTER_S)
        return timedelta(seconds=wanted * (1 + JITTER * rand()))
    ceiling = min(CAP_S, BASE_S * 2 ** min(attempt - 1, 16))
    return timedelta(seconds=max(ceiling * rand(), BASE_S / 10))


def backfill_poll_delay(age: timedelta, *, rand: Random = random.random) -> timedelta:
    """How long to wait before looking again: about a tenth of the backfill's age, from 1 s to 5 min."""
    seconds = min(max(age.total_seconds() * POLL_SHARE, POLL_MIN_S), POLL_MAX_S)
    return jittered(timedelta(seconds=seconds), rand=rand)


def jittered(interval: timedelta, *, rand: Random = random.random) -> timedelta:
    """The interval, a tenth more or less, so that rows that began together drift apart."""
    return interval * (1 + JITTER * (2 * rand() - 1))


def parse_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds to wait, from either form of `Retry-After`: a number of seconds or an HTTP date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now or datetime.now(UTC))
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _seconds_until(http_date: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(http_date)
    except ValueError:
        return math.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()
