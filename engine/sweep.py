"""The periodic look for readings that are due and nobody was told about, and for what can be erased."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import Delete
from sqlmodel import Session, and_, col, delete, func, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from engine.backfill.store import cutoff_of
from engine.syncs import HINT_TRUSTED_FOR
from engine.tables import IdempotencyKey, Progress, Record, Sync, SyncStatus
from engine.tables.access import KEPT_FOR
from engine.transactions import retrying
from foundation.database import Database

AT_MOST: Final = 500
ERASED_AT_ONCE: Final = 500
TRIMMED_EVERY: Final = timedelta(hours=1)


def find_due(database: Database, now: datetime) -> Sequence[UUID]:
    """Due readings without a hint under way, marked as hinted; several sweeps share them out."""
    with database.read() as session:
        if session.exec(_unhinted(now).limit(1)).first() is None:
            return []
    oldest = _unhinted(now).order_by(col(Progress.due_at)).limit(AT_MOST)
    with database.write() as session:
        found = session.exec(oldest.with_for_update(skip_locked=True, of=Progress)).all()
        trusted = now + HINT_TRUSTED_FOR
        hinted = update(Progress).where(col(Progress.id).in_(found)).values(hinted_until=trusted)
        session.exec(hinted.execution_options(synchronize_session=False))
        return found


def erase_removed(database: Database) -> int:
    """Delete the records of removed syncs, a few per transaction, and then the syncs; says how many syncs."""
    with database.read() as session:
        is_doomed = and_(col(Sync.removed_at).is_not(None), col(Sync.keeps_records).is_(False))
        removed = session.exec(select(Sync.id).where(is_doomed)).all()
    for sync_id in removed:
        while retrying(database, partial(_erase_some, sync_id=sync_id)):
            pass
        with database.write() as session:
            session.exec(delete(Sync).where(col(Sync.id) == sync_id))
    return len(removed)


def trim_old(database: Database, now: datetime) -> int:
    """Take records beyond `max_age_days` out of the streams, a few per transaction; says how many."""
    due = or_(col(Sync.trimmed_at).is_(None), col(Sync.trimmed_at) <= now - TRIMMED_EVERY)
    statement = select(Sync).where(col(Sync.max_age_days).is_not(None), due, col(Sync.removed_at).is_(None))
    with database.read() as session:
        syncs = session.exec(statement.order_by(col(Sync.trimmed_at)).limit(AT_MOST)).all()
    return sum(_trim(database, sync, now) for sync in syncs)


def forget_keys(database: Database, now: datetime) -> None:
    """Idempotency keys are kept for a day."""
    with database.write() as session:
        session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now - KEPT_FOR))


def _unhinted(now: datetime) -> SelectOfScalar[UUID]:
    return (
        select(Progress.id)
        .join(Sync, col(Sync.id) == Progress.sync_id)
        .where(
            col(Progress.due_at) <= now,
            or_(col(Progress.leased_until).is_(None), col(Progress.leased_until) <= now),
            or_(col(Progress.hinted_until).is_(None), col(Progress.hinted_until) <= now),
            Sync.status == SyncStatus.ACTIVE,
            col(Sync.removed_at).is_(None),
        )
    )


def _trim(database: Database, sync: Sync, now: datetime) -> int:
    """What was neither created nor updated since the cutoff; what has no date stays."""
    latest = func.coalesce(Record.upstream_updated_at, Record.upstream_created_at)
    earliest = func.coalesce(Record.upstream_created_at, Record.upstream_updated_at)
    cutoff = cutoff_of(sync.max_age_days, now)
    old = select(Record.id).where(Record.sync_id == sync.id, latest < cutoff, earliest < cutoff)
    trimmed = 0
    with database.read() as reading:  # goes on while others write, and holds a few ids at a time
        for some in reading.exec(old.execution_options(yield_per=ERASED_AT_ONCE)).partitions():
            gone = delete(Record).where(col(Record.id).in_(some), latest < cutoff, earliest < cutoff)
            trimmed += retrying(database, partial(_trim_some, sync=sync, gone=gone))
    with database.write() as session:
        session.exec(update(Sync).where(col(Sync.id) == sync.id).values(trimmed_at=now))
    return trimmed


def _trim_some(session: Session, sync: Sync, gone: Delete) -> int:
    """Locked like a reading's page, so that what a page updates at this moment is seen to be young."""
    session.exec(select(Sync.id).where(Sync.id == sync.id).with_for_update(key_share=True)).first()
    return session.exec(gone).rowcount


def _erase_some(session: Session, sync_id: UUID) -> bool:
    some = select(Record.id).where(Record.sync_id == sync_id).limit(ERASED_AT_ONCE)
    return session.exec(delete(Record).where(col(Record.id).in_(some))).rowcount > 0
