"""The periodic look for readings that are due and nobody was told about."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import col, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from engine.syncs import HINT_TRUSTED_FOR
from engine.tables import Progress, Sync, SyncStatus
from foundation.database import Database

AT_MOST: Final = 500


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
