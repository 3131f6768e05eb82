"""The periodic look for readings that are due and nobody was told about, and for what can be erased."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import col, delete, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from engine.syncs import HINT_TRUSTED_FOR
from engine.tables import IdempotencyKey, Progress, Record, Sync, SyncStatus
from engine.tables.access import KEPT_FOR
from foundation.database import Database

AT_MOST: Final = 500
ERASED_AT_ONCE: Final = 500


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
        removed = session.exec(select(Sync.id).where(col(Sync.removed_at).is_not(None))).all()
    for sync_id in removed:
        while _erase_some(database, sync_id):
            pass
        with database.write() as session:
            session.exec(delete(Sync).where(col(Sync.id) == sync_id))
    return len(removed)


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


def _erase_some(database: Database, sync_id: UUID) -> bool:
    with database.write() as session:
        some = select(Record.id).where(Record.sync_id == sync_id).limit(ERASED_AT_ONCE)
        erased = session.exec(delete(Record).where(col(Record.id).in_(some)))
        return erased.rowcount > 0
