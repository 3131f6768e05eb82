"""What a look reads: the list of what changed, and now and then the list of what is gone. Pure functions.

The cursor of the second is `{"gone": cursor}`, so that a killed worker's successor goes on with it.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from engine.changes.position import MARGIN, Position
from engine.providers.catalogue import Provider
from engine.providers.changes import UpdatedSince
from engine.providers.paging import Cursor
from engine.providers.records import Page, gone

GONE: Final = "gone"
NOTHING: Final = Page([], None)
"""Instead of the list of what is gone, where the credential may not read that."""


def is_sweep(cursor: Cursor | None) -> bool:
    """Whether what comes next is of the list of what is gone."""
    return cursor is not None and GONE in cursor


def place(
    provider: Provider, collection_id: str, changes: UpdatedSince, position: Position, cursor: Cursor | None
) -> tuple[Provider, Cursor | None]:
    """The provider whose collection is the list to be read, and where in it."""
    if changes.gone is None or not is_sweep(cursor):
        return provider.narrowed(collection_id, changes, position.since), cursor
    inner = cursor[GONE] if cursor else None
    since = position.gone_since or position.since
    return provider.swept(collection_id, changes.gone, since), inner if isinstance(inner, dict) else None


def onward(
    changes: UpdatedSince, position: Position, cursor: Cursor | None, page: Page, now: datetime
) -> Page:
    """The page as it counts for the stream, and what comes after it."""
    if is_sweep(cursor):
        following: Cursor | None = None if page.following is None else {GONE: page.following}
        records = [gone(record.upstream_id) for record in page.records]
        return replace(page, records=records, following=following)
    if page.following is None and _is_sweep_due(changes, position, now):
        return replace(page, following={GONE: None})
    return page


def _is_sweep_due(changes: UpdatedSince, position: Position, now: datetime) -> bool:
    if changes.gone is None:
        return False
    swept_at = position.gone_since
    return swept_at is None or now - swept_at - MARGIN >= timedelta(seconds=changes.gone.every_s)
