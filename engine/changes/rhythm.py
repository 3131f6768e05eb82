"""When to look again: pure decisions."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from engine.providers.catalogue import RateLimit
from engine.tables import SyncFrequency

ON_THE_CLOCK: Final = timedelta(hours=4)
CALMING: Final = 60
"""Who has been quiet for a minute is looked at every second, for an hour every minute, within the bounds."""
RESTING: Final = 9
"""Where only whole passes show changes, the rest is so many times as long as the pass."""
SHARE: Final = 4
"""A pass that only makes sure takes every fourth request allowed, and so do looks beside a backfill."""
LOOKS: Final = 2
"""Looks take every second one, all of a sync together."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often an installation looks for changes."""

    floor_s: float = 1.0
    ceiling_s: float = 30.0
    whole_pass_every_s: float = 86_400.0

    def next_look(self, frequency: str, anchor: datetime, changed_at: datetime, now: datetime) -> datetime:
        """After a look: soon where things move, later where they are quiet, or on the sync's own clock."""
        if frequency == SyncFrequency.EVERY_4H:
            return on_the_clock(anchor, now)
        quiet_s = (now - changed_at).total_seconds()
        return now + timedelta(seconds=min(max(quiet_s / CALMING, self.floor_s), self.ceiling_s))

    def next_pass(
        self, frequency: str, anchor: datetime, started_at: datetime, now: datetime, *, is_watched: bool
    ) -> datetime:
        """After a whole pass: rarely if changes are seen without it, otherwise it is the look."""
        if is_watched:
            return now + timedelta(seconds=self.whole_pass_every_s)
        if frequency == SyncFrequency.EVERY_4H:
            return on_the_clock(anchor, now)
        rest_s = RESTING * (now - started_at).total_seconds()
        return now + timedelta(seconds=min(max(rest_s, self.ceiling_s), self.whole_pass_every_s))


def on_the_clock(anchor: datetime, now: datetime) -> datetime:
    """The next time that is a whole number of intervals after the anchor: no drift, and no two alike."""
    return anchor + (math.floor((now - anchor) / ON_THE_CLOCK) + 1) * ON_THE_CLOCK


def rest_s(rate_limit: RateLimit) -> float:
    """The rest after each page of a pass that nobody waits for."""
    return SHARE * rate_limit.interval / rate_limit.allowed_requests


def look_rest_s(rate_limit: RateLimit, requests: int, looks: int, *, is_backfilling: bool) -> float:
    """The rest after a look that took so many requests, one of so many that a sync makes."""
    share = SHARE if is_backfilling else LOOKS
    return share * looks * requests * rate_limit.interval / rate_limit.allowed_requests


def has_gap(checked_at: datetime, retention: timedelta, now: datetime) -> bool:
    """Whether the feed may have forgotten events that were not seen."""
    return now - checked_at > retention
