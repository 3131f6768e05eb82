"""Whether a refusal only asks to slow down, and for how long, and when to do so before being refused."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import Field

from engine.providers.part import Part

LONGEST_S: Final = 24 * 3600.0
NEARLY_FULL: Final = 0.8
HALF: Final = 0.5
SHARE: Final = re.compile(r"(\d{1,9})/([1-9]\d{0,8})", re.ASCII)


class Throttle(Part):
    """How a provider says that a limit is reached, beyond `429` and `Retry-After`."""

    statuses: tuple[int, ...] = ()
    """Statuses besides 429 that mean it when a header or the body says so too."""
    remaining: str | None = None
    """The header with the number of requests left."""
    reset: str | None = None
    """The header with the time of more, in seconds since 1970."""
    used: str | None = None
    """The header with how much is used of how much, such as `32/40`."""
    drains_s: float = Field(default=60.0, gt=0)
    """How long it takes until all of that can be used again."""
    codes: tuple[str, ...] = ()
    """Error codes in the body."""
    pause_s: float | None = Field(default=None, gt=0)
    """How long to wait where the answer does not say."""


def is_throttled(throttle: Throttle, status: int, headers: Mapping[str, str], body: str) -> bool:
    """Whether an unsuccessful answer means "later" and not "no"."""
    if status == 429:
        return True
    if status not in throttle.statuses:
        return False
    is_spent = throttle.remaining is not None and headers.get(throttle.remaining) == "0"
    return is_spent or "retry-after" in headers or any(code in body for code in throttle.codes)


def resets_in_s(throttle: Throttle, headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until the provider counts anew; nothing unless it says so, or its file does."""
    if throttle.reset is None or throttle.remaining is None or headers.get(throttle.remaining) != "0":
        return throttle.pause_s
    moment = headers.get(throttle.reset, "")
    if not moment.isdecimal():
        return throttle.pause_s
    return min(max(float(moment) - now.timestamp(), 0.0), LONGEST_S)


def rest_ahead_s(throttle: Throttle, headers: Mapping[str, str], now: datetime) -> float:
    """How long to rest after an answer so that the next request is not refused; zero while there is room."""
    if throttle.remaining is not None and headers.get(throttle.remaining) == "0":
        return resets_in_s(throttle, headers, now) or 0.0
    share = SHARE.search(headers.get(throttle.used, "")) if throttle.used else None
    full = int(share[1]) / int(share[2]) if share else 0.0
    return min(full - HALF, 1.0) * throttle.drains_s if full >= NEARLY_FULL else 0.0
