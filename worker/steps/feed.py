"""The state of the feed of changed syncs, as all processes see it."""

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from models import ChangeCursor, State
from models.change_cursor import SYNCS

CALM: Final = frozenset({State.READY, State.PAUSED})
"""States that a feed of changes watches alone."""
LIVE_FOR: Final = timedelta(minutes=1)


def is_live(session: Session, *, now: datetime) -> bool:
    """Whether the feed tells of changes now, so that quiet syncs need not be polled."""
    feed = session.get(ChangeCursor, SYNCS)
    return (
        feed is not None
        and feed.is_supported is True
        and feed.caught_up_at is not None
        and now - feed.caught_up_at < LIVE_FOR
    )


def is_listing(session: Session) -> bool:
    """Whether a first listing of all syncs gets on: then quiet syncs need not be polled either."""
    feed = session.get(ChangeCursor, SYNCS)
    return (
        feed is not None
        and feed.is_supported is True
        and feed.caught_up_at is None
        and feed.failing_since is None
    )


def is_due(session: Session, *, now: datetime) -> bool:
    """Whether it is time to ask the feed again, and no worker is doing so."""
    feed = session.get(ChangeCursor, SYNCS)
    return feed is None or (feed.due_at <= now and not is_leased(feed, now))


def is_leased(feed: ChangeCursor, now: datetime) -> bool:
    return feed.leased_until is not None and feed.leased_until > now
