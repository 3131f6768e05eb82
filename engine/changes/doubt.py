"""What a pass and the events saw differently at one moment: neither is believed, the object is asked for.

Which came first cannot be told, and no event need come to settle it: not every change has one.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import Session

from engine.changes.position import Ask, Position
from engine.providers.catalogue import Provider
from engine.providers.changes import EventFeed
from engine.syncs import progress_of
from engine.tables import ReadingKind, Sync


def have_asked(
    session: Session,
    sync: Sync,
    provider: Provider,
    collection_id: str,
    touched: Mapping[str, datetime],
    now: datetime,
) -> None:
    """Leave objects, with when they were touched, to the reading of events, which looks at once."""
    if not touched or not isinstance(provider.changes_of(collection_id), EventFeed):
        return
    asks = [Ask(collection_id, upstream_id, at) for upstream_id, at in touched.items()]
    for each in progress_of(session, sync.id):
        if each.kind == ReadingKind.EVENTS:
            each.position = Position.of(each.position).asking_also(asks).stored()
            each.due_at = each.due_at and min(each.due_at, now)  # without a time it has not begun
