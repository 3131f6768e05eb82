"""How far the changes have been seen: a moment, not a cursor, so that nothing upstream can invalidate it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from engine.tables import JsonObject

MARGIN: Final = timedelta(minutes=1)
"""How late a change may show up, its clock's difference from ours included, when a position is ours."""


class Ask(NamedTuple):
    """An object to be read for itself, and when it was touched."""

    collection_id: str
    upstream_id: str
    touched_at: datetime


class Position(BaseModel):
    """Every change up to `since` has been seen; the rest is of the walk under way."""

    model_config = ConfigDict(frozen=True)

    since: datetime
    gone_since: datetime | None = None
    """Every delete up to here has been seen, where a list of its own tells of them."""
    newest: datetime | None = None
    began_at: datetime | None = None
    requests: int = 0
    asks: tuple[Ask, ...] = Field(default=())
    """Read one by one before the walk goes on."""

    @classmethod
    def starting(cls, now: datetime) -> Self:
        """Where to begin, taken before the first page of a backfill is read."""
        return cls(since=now - MARGIN)

    @classmethod
    def of(cls, stored: JsonObject | None) -> Self:
        return cls.model_validate(stored)

    def stored(self) -> JsonObject:
        return self.model_dump(mode="json")

    def having_seen(self, newest: datetime | None, asked_at: datetime) -> Self:
        furthest = max((each for each in (self.newest, newest) if each), default=None)
        began_at = self.began_at or asked_at
        return self.model_copy(
            update={"newest": furthest, "began_at": began_at, "requests": self.requests + 1}
        )

    @property
    def next_ask(self) -> Ask | None:
        """What to ask for now: a walk begins with a page, since its end will say what has been seen."""
        return self.asks[0] if self.asks and self.began_at else None

    def asking_also(self, asks: Iterable[Ask]) -> Self:
        return self.model_copy(update={"asks": tuple(dict.fromkeys((*self.asks, *asks)))})

    def without(self, ask: Ask) -> Self:
        """No longer in doubt about an object, whatever it was that touched it."""
        return self.model_copy(update={"asks": tuple(each for each in self.asks if each[:2] != ask[:2])})

    def after_sweep(self) -> Self:
        """What is gone was read to the end by a walk that is ending."""
        return self.model_copy(update={"gone_since": self.began_at - MARGIN if self.began_at else None})

    def after_walk(self) -> Self:
        """The next walk begins where this one found its newest change, or not much before this one began.

        A change newer than that says nothing about others: pages that were read by then may have missed them.
        """
        if self.began_at is None:
            return self
        is_before = self.newest is not None and self.newest <= self.began_at
        seen = [self.newest if is_before else None, self.began_at - MARGIN]
        since = max(self.since, *filter(None, seen))
        return self.model_copy(update={"since": since, "newest": None, "began_at": None, "requests": 0})
