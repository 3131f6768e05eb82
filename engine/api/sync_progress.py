"""How far a sync is, derived from its readings."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from engine.api.sync_shapes import CollectionProgress, ProgressState, SyncProgress
from engine.health import Trouble, TroubleCode
from engine.tables import ALL_COLLECTIONS, Progress, ReadingKind, Sync, SyncStatus

NEEDS_A_PERSON: Final = frozenset(TroubleCode) - {TroubleCode.PROVIDER_UNAVAILABLE, TroubleCode.RATE_LIMITED}


def progress_of_sync(sync: Sync, readings: Sequence[Progress]) -> SyncProgress:
    """Every collection in the order of the sync's own list."""
    passes = {each.collection_id: each for each in readings if each.kind == ReadingKind.PASS}
    watches = {each.collection_id: each for each in readings if each.kind != ReadingKind.PASS}
    return SyncProgress(
        sync_id=sync.id,
        data=[
            _of(sync, passes[each], watches.get(each) or watches.get(ALL_COLLECTIONS))
            for each in sync.collection_ids
            if each in passes
        ],
    )


def state_of(sync: Sync, whole: Progress, trouble: Trouble | None) -> ProgressState:
    """What is happening to a collection; waiting for a provider to come back is not a failure."""
    if sync.status != SyncStatus.ACTIVE:
        return ProgressState.STOPPED
    if trouble is not None and trouble.code in NEEDS_A_PERSON:
        return ProgressState.FAILED
    if whole.done_at is not None:
        return ProgressState.WATCHING
    return ProgressState.BACKFILLING if whole.started_at else ProgressState.WAITING


def _of(sync: Sync, whole: Progress, watch: Progress | None) -> CollectionProgress:
    trouble = _trouble(whole) or (_trouble(watch) if watch and whole.done_at else None)
    return CollectionProgress(
        collection_id=whole.collection_id,
        state=state_of(sync, whole, trouble),
        records_read=whole.records_read,
        pages_read=whole.pages_read,
        started_at=whole.started_at,
        completed_at=whole.done_at,
        last_checked_at=_latest(whole.done_at, watch.checked_at if watch else None),
        reason=trouble,
    )


def _trouble(reading: Progress) -> Trouble | None:
    return Trouble.model_validate(reading.trouble) if reading.trouble else None


def _latest(*moments: datetime | None) -> datetime | None:
    return max(filter(None, moments), default=None)
