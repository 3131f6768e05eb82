"""What happens to a sync besides reading: it is created, changed, settled and removed."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlmodel import Session, col, delete, select

from engine.errors import InvalidError
from engine.health import Reading, Trouble, decide
from engine.providers.catalogue import Provider
from engine.tables import Progress, Sync, SyncStatus
from foundation.database import new_id, utc_now

HINT_TRUSTED_FOR: Final = timedelta(seconds=5)
"""How long a sent hint keeps the sweep from sending another."""


def known_collections(provider: Provider, collection_ids: Iterable[str]) -> list[str]:
    """The ids, each once and in the given order, or 422 naming those the provider does not have."""
    wanted = list(dict.fromkeys(collection_ids))
    unknown = [each for each in wanted if provider.collection(each) is None]
    if unknown:
        raise InvalidError({"collection_ids": [f"unknown collection {each}" for each in unknown]})
    if not wanted:
        raise InvalidError({"collection_ids": ["must name at least one collection"]})
    return wanted


def start_reading(session: Session, sync: Sync, collection_ids: Iterable[str]) -> Sequence[UUID]:
    """Make collections due; the caller hints after the commit."""
    now = utc_now()
    started = [
        Progress(sync_id=sync.id, collection_id=each, due_at=now, hinted_until=now + HINT_TRUSTED_FOR)
        for each in collection_ids
    ]
    session.add_all(started)
    session.flush()
    return [progress.id for progress in started]


def select_collections(session: Session, sync: Sync, collection_ids: Sequence[str]) -> Sequence[UUID]:
    """Stop what is no longer selected, start what is new; records already in the stream stay."""
    added = [each for each in collection_ids if each not in sync.collection_ids]
    removed = [each for each in sync.collection_ids if each not in collection_ids]
    session.exec(
        delete(Progress).where(col(Progress.sync_id) == sync.id, col(Progress.collection_id).in_(removed))
    )
    sync.collection_ids = list(collection_ids)
    return start_reading(session, sync, added)


def read_deeper(session: Session, sync: Sync, max_age_days: int | None) -> Sequence[UUID]:
    """Set the depth; a deeper one has every collection read again, whose known records do not move."""
    before, sync.max_age_days = sync.max_age_days, max_age_days
    if before is None or (max_age_days is not None and max_age_days <= before):
        return []
    readings = progress_of(session, sync.id)
    for progress in readings:
        restart(progress)
    return [progress.id for progress in readings]


def restart(progress: Progress) -> None:
    """Read anew at once. A slice that is under way loses its claim."""
    begin_pass(progress)
    progress.failures = 0
    progress.done_at = progress.leased_until = None
    progress.due_at = utc_now()
    progress.fence += 1


def begin_pass(progress: Progress) -> None:
    """Back to the first page; what the stream holds counts as not met yet."""
    progress.cursor = None
    progress.pass_id = new_id()
    progress.pages_read = progress.stale_pages = 0


def resume(session: Session, sync: Sync) -> Sequence[UUID]:
    """Activate a sync: whatever is not finished is due where it stood."""
    sync.status = SyncStatus.ACTIVE
    return [progress.id for progress in progress_of(session, sync.id) if progress.due_at is not None]


def settle(session: Session, sync: Sync, now: datetime) -> None:
    """Derive the sync's health, and whether its first backfill is complete, from its readings."""
    readings = progress_of(session, sync.id)
    health = decide([reading_of(progress) for progress in readings], now)
    sync.health_status = health.status
    sync.health_reason = health.reason.model_dump(mode="json") if health.reason else None
    if sync.initial_backfill_completed_at is None and all(progress.done_at for progress in readings):
        sync.initial_backfill_completed_at = now


def reading_of(progress: Progress) -> Reading:
    trouble = Trouble.model_validate(progress.trouble) if progress.trouble else None
    return Reading(has_read=progress.pages_read > 0, trouble=trouble)


def progress_of(session: Session, sync_id: UUID) -> Sequence[Progress]:
    return session.exec(select(Progress).where(Progress.sync_id == sync_id)).all()


def remove(session: Session, sync: Sync) -> None:
    """Gone for the API at once; the readings stop and the records are erased in the background."""
    session.exec(delete(Progress).where(col(Progress.sync_id) == sync.id))
    sync.removed_at = utc_now()
    sync.credential_id = None
