"""What happens to a sync besides reading: it is created, changed, settled and removed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlmodel import Session, col, delete, select

from engine.changes.position import Position
from engine.changes.rhythm import Rhythm, on_the_clock
from engine.errors import InvalidError
from engine.health import Reading, Trouble, decide
from engine.providers.catalogue import Provider
from engine.providers.changes import EventFeed, UpdatedSince
from engine.tables import ALL_COLLECTIONS, Progress, ReadingKind, Sync, SyncFrequency, SyncStatus
from foundation.database import new_id, utc_now

HINT_TRUSTED_FOR: Final = timedelta(seconds=5)
"""How long a sent hint keeps the sweep from sending another."""


def known_collections(provider: Provider, collection_ids: Iterable[str]) -> list[str]:
    """The ids, each once and in the given order, or 422 naming those the provider does not have."""
    wanted = list(dict.fromkeys(collection_ids))
    unknown = [each for each in wanted if provider.collection(each) is None]
    if unknown:
        raise InvalidError({"collection_ids": [f"unknown collection {each}" for each in unknown]})
    return wanted


def start_reading(
    session: Session, sync: Sync, provider: Provider, collection_ids: Iterable[str]
) -> Sequence[UUID]:
    """Make collections due and note from where to watch them later; the caller hints after the commit."""
    now = utc_now()
    wanted = list(collection_ids)
    passes = [
        Progress(sync_id=sync.id, collection_id=each, due_at=now, hinted_until=now + HINT_TRUSTED_FOR)
        for each in wanted
    ]
    session.add_all([*passes, *_watches(session, sync, provider, wanted, now)])
    session.flush()
    return [progress.id for progress in passes]


def select_collections(
    session: Session, sync: Sync, provider: Provider, collection_ids: Sequence[str]
) -> Sequence[UUID]:
    """Stop what is no longer selected, start what is new; records already in the stream stay."""
    added = [each for each in collection_ids if each not in sync.collection_ids]
    stopped = [each for each in sync.collection_ids if each not in collection_ids]
    if not any(isinstance(provider.changes_of(each), EventFeed) for each in collection_ids):
        stopped.append(ALL_COLLECTIONS)
    session.exec(
        delete(Progress).where(col(Progress.sync_id) == sync.id, col(Progress.collection_id).in_(stopped))
    )
    sync.collection_ids = list(collection_ids)
    return start_reading(session, sync, provider, added)


def read_deeper(session: Session, sync: Sync, max_age_days: int | None) -> Sequence[UUID]:
    """Set the depth; a deeper one has every collection read again, whose known records do not move."""
    before, sync.max_age_days = sync.max_age_days, max_age_days
    sync.trimmed_at = None
    if before is None or (max_age_days is not None and max_age_days <= before):
        return []
    return read_again(session, sync)


def read_again(session: Session, sync: Sync, collection_ids: Iterable[str] | None = None) -> Sequence[UUID]:
    """Start a fresh pass over these collections, or over all."""
    wanted = set(sync.collection_ids if collection_ids is None else collection_ids)
    passes = [each for each in passes_of(session, sync.id) if each.collection_id in wanted]
    for progress in passes:
        restart(progress)
    return [progress.id for progress in passes]


def change_frequency(session: Session, sync: Sync, provider: Provider, frequency: str) -> Sequence[UUID]:
    """Look at once, or not before it is time; a reading under way decides when it ends."""
    if frequency == sync.sync_frequency:
        return []
    sync.sync_frequency = frequency
    now = utc_now()
    waiting = [
        each
        for each in progress_of(session, sync.id)
        if _is_waiting(each, now)
        and (each.kind != ReadingKind.PASS or not provider.changes_of(each.collection_id))
    ]
    for progress in waiting:
        is_rare = frequency == SyncFrequency.EVERY_4H
        progress.due_at = on_the_clock(progress.created_at, now) if is_rare else now
    return [progress.id for progress in waiting if progress.due_at == now]


def restart(progress: Progress) -> None:
    """Read anew at once. A slice that is under way loses its claim."""
    begin_pass(progress)
    progress.failures = progress.deaths = 0
    progress.started_at = progress.done_at = progress.leased_until = None
    progress.due_at = utc_now()
    progress.fence += 1


def begin_pass(progress: Progress) -> None:
    """Back to the first page; what the stream holds counts as not met yet."""
    progress.cursor = progress.refused = progress.skipped = progress.retiring_after = None
    progress.pass_id = new_id()
    progress.pages_read = progress.stale_pages = progress.records_read = 0


def finish_pass(
    session: Session, sync: Sync, progress: Progress, now: datetime, *, rhythm: Rhythm, is_watched: bool
) -> None:
    """Everything has been read: rest, and have the changes watched from now on."""
    started_at = progress.started_at or now
    progress.cursor = progress.retiring_after = progress.leased_until = None
    progress.done_at = now
    progress.due_at = rhythm.next_pass(
        sync.sync_frequency, progress.created_at, started_at, now, is_watched=is_watched
    )
    for each in progress_of(session, sync.id):
        if each.due_at is None and each.collection_id in {progress.collection_id, ALL_COLLECTIONS}:
            each.due_at = now
    settle(session, sync, now)


def watch(session: Session, sync: Sync, provider: Provider, collection_id: str, since: datetime) -> None:
    """Have changes seen that the provider did not tell of when the sync was created."""
    there = {(each.kind, each.collection_id) for each in progress_of(session, sync.id)}
    watches = _watches(session, sync, provider, [collection_id], since)
    session.add_all([each for each in watches if (each.kind, each.collection_id) not in there])


def stop_watching(session: Session, progress_id: UUID) -> None:
    """The provider no longer tells of changes: whole passes see them."""
    session.exec(delete(Progress).where(col(Progress.id) == progress_id))


def resume(session: Session, sync: Sync) -> Sequence[UUID]:
    """Activate a sync: whatever is due goes on where it stood."""
    sync.status = SyncStatus.ACTIVE
    now = utc_now()
    return [each.id for each in progress_of(session, sync.id) if each.due_at and each.due_at <= now]


def settle(session: Session, sync: Sync, now: datetime) -> None:
    """Derive the sync's health, and whether its first backfill is complete, from its readings."""
    readings = progress_of(session, sync.id)
    health = decide([reading_of(progress) for progress in readings], now)
    sync.health_status = health.status
    sync.health_reason = health.reason.model_dump(mode="json") if health.reason else None
    if sync.initial_backfill_completed_at is None and _is_complete(readings):
        sync.initial_backfill_completed_at = now


def reading_of(progress: Progress) -> Reading:
    trouble = Trouble.model_validate(progress.trouble) if progress.trouble else None
    return Reading(has_read=progress.pages_read > 0, trouble=trouble)


def progress_of(session: Session, sync_id: UUID) -> Sequence[Progress]:
    return session.exec(select(Progress).where(Progress.sync_id == sync_id)).all()


def passes_of(session: Session, sync_id: UUID) -> Sequence[Progress]:
    """The readings of whole collections, without those of changes."""
    return [each for each in progress_of(session, sync_id) if each.kind == ReadingKind.PASS]


def remove(session: Session, sync: Sync, *, keep_records: bool) -> None:
    """Gone for the API at once; the readings stop and the records are kept, or erased in the background."""
    session.exec(delete(Progress).where(col(Progress.sync_id) == sync.id))
    sync.removed_at, sync.keeps_records = utc_now(), keep_records
    sync.credential_id = None


def _watches(
    session: Session, sync: Sync, provider: Provider, collection_ids: Sequence[str], now: datetime
) -> Iterator[Progress]:
    """Not due before a first pass is over, but positioned before it begins, so that nothing falls between."""
    position = Position.starting(now).stored()
    for each in collection_ids:
        if isinstance(provider.changes_of(each), UpdatedSince):
            yield Progress(sync_id=sync.id, kind=ReadingKind.SINCE, collection_id=each, position=position)
    has_feed = any(each.kind == ReadingKind.EVENTS for each in progress_of(session, sync.id))
    if not has_feed and any(isinstance(provider.changes_of(each), EventFeed) for each in collection_ids):
        yield Progress(
            sync_id=sync.id, kind=ReadingKind.EVENTS, collection_id=ALL_COLLECTIONS, position=position
        )


def _is_waiting(progress: Progress, now: datetime) -> bool:
    """Whether nothing is wrong or under way and the next look has a time."""
    is_free = progress.leased_until is None or progress.leased_until <= now
    has_ended = progress.kind != ReadingKind.PASS or is_over(progress)
    return is_free and has_ended and progress.failures == 0 and progress.due_at is not None


def is_over(progress: Progress) -> bool:
    """Whether a whole pass has ended and the next has not begun."""
    if progress.done_at is None:
        return False
    return progress.started_at is None or progress.started_at <= progress.done_at


def _is_complete(readings: Sequence[Progress]) -> bool:
    return all(each.done_at for each in readings if each.kind == ReadingKind.PASS)
