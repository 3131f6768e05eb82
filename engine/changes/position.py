"""How far the changes have been seen: a moment, not a cursor, so that nothing upstream can invalidate it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from engine.providers.paging import Cursor
from engine.tables import JsonObject

MARGIN: Final = timedelta(minutes=1)
"""How late a change may show up, its clock's difference from ours included, when a position is ours."""

LONGEST_WALK: Final = 100_000
"""Pages. A whole pass is shorter than a longer one."""


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
    pages: int = 0
    anchor: Cursor | None = None
    """A cursor that the walk has been at; which one, changes ever more rarely."""
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

    def is_circling(self, cursor: Cursor | None, following: Cursor | None) -> bool:
        """Whether the walk comes back to where it has been, sooner or later (Brent), or will not end."""
        if cursor is None or following is None:
            return False
        return following in (cursor, self.anchor) or self.pages >= LONGEST_WALK

    def walked(self, cursor: Cursor | None, following: Cursor | None) -> Self:
        """One page further; no cursor began the walk."""
        pages = 1 if cursor is None else self.pages + 1
        is_milestone = pages & (pages - 1) == 0
        return self.model_copy(update={"pages": pages, "anchor": following if is_milestone else self.anchor})

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
        over = {"newest": None, "began_at": None, "requests": 0, "pages": 0, "anchor": None}
        return self.model_copy(update={"since": since, **over})
