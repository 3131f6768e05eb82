"""Erases what nobody shall see any more: a little per transaction, for a few seconds, one purge at a time."""

import math
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Delete
from sqlmodel import Session, and_, col, delete, func, or_, select, update

from engine.backfill.store import cutoff_of
from engine.sync_changes import forget_deletions
from engine.tables import IdempotencyKey, Record, Sync
from engine.tables.access import KEPT_FOR
from engine.transactions import retrying
from foundation.database import Database

SYNCS_AT_MOST: Final = 500
RECORDS_AT_ONCE: Final = 500
TRIMMED_EVERY: Final = timedelta(hours=1)
CHANGES_KEPT: Final = timedelta(days=7)
LASTS_S: Final = 5.0
"""So long each kind of work may keep a thread from the readings."""

log = structlog.get_logger(__name__)


class Left(Enum):
    """What a look for records to erase left of them."""

    SOME = auto()
    LOCKED = auto()
    NONE = auto()


def purge(
    database: Database,
    now: datetime,
    only: Collection[UUID] = (),
    *,
    for_s: float = LASTS_S,
    changes_kept: timedelta = CHANGES_KEPT,
) -> bool:
    """Erase removed syncs, or only those named, then what else is too old; says whether that was all.

    Where another purge is under way there is nothing to do: it goes on until nothing is left.
    """
    with database.alone("purge") as is_alone:
        if not is_alone:
            return True
        is_done = erase_removed(database, only, over_at=time.monotonic() + for_s)
        if only:
            return is_done
        forget_keys(database, now)
        forget_deletions(database, now - changes_kept)
        return trim_old(database, now, over_at=time.monotonic() + for_s) and is_done


def erase_removed(database: Database, only: Collection[UUID] = (), *, over_at: float = math.inf) -> bool:
    """Delete the records of removed syncs, and then the syncs; says whether the time was enough.

    What others have locked is left to a later purge.
    """
    is_doomed = and_(col(Sync.removed_at).is_not(None), col(Sync.keeps_records).is_(False))
    removed = select(Sync.id).where(is_doomed, *([col(Sync.id).in_(only)] if only else []))
    with database.read() as session:
        doomed = session.exec(removed).all()
    for sync_id in doomed:
        left = Left.SOME
        while left is Left.SOME:
            if time.monotonic() >= over_at:
                return False
            left = retrying(database, partial(_erase_some, sync_id=sync_id))
        log.info("sync.erased" if left is Left.NONE else "sync.locked", sync_id=str(sync_id))
    return True


def trim_old(database: Database, now: datetime, *, over_at: float = math.inf) -> bool:
    """Take records beyond `max_age_days` out of the streams; says whether the time was enough."""
    due = or_(col(Sync.trimmed_at).is_(None), col(Sync.trimmed_at) <= now - TRIMMED_EVERY)
    statement = select(Sync).where(col(Sync.max_age_days).is_not(None), due, col(Sync.removed_at).is_(None))
    with database.read() as session:
        syncs = session.exec(statement.order_by(col(Sync.trimmed_at)).limit(SYNCS_AT_MOST)).all()
    return all(_trim(database, sync, now, over_at) for sync in syncs)


def forget_keys(database: Database, now: datetime) -> None:
    """Idempotency keys are kept for a day."""
    with database.write() as session:
        session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now - KEPT_FOR))


def _erase_some(session: Session, sync_id: UUID) -> Left:
    """The sync goes in the transaction that finds it empty: deleting it deletes what it has with it."""
    of_sync = select(Record.id).where(Record.sync_id == sync_id).limit(RECORDS_AT_ONCE)
    if some := session.exec(of_sync.with_for_update(skip_locked=True)).all():
        session.exec(delete(Record).where(col(Record.id).in_(some)))
        return Left.SOME
    if session.exec(of_sync.limit(1)).first() is not None:
        return Left.LOCKED
    session.exec(delete(Sync).where(col(Sync.id) == sync_id))
    return Left.NONE


def _trim(database: Database, sync: Sync, now: datetime, over_at: float) -> bool:
    """What was neither created nor updated since the cutoff; what has no date stays."""
    latest = func.coalesce(Record.upstream_updated_at, Record.upstream_created_at)
    earliest = func.coalesce(Record.upstream_created_at, Record.upstream_updated_at)
    cutoff = cutoff_of(sync.max_age_days, now)
    old = select(Record.id).where(Record.sync_id == sync.id, latest < cutoff, earliest < cutoff)
    trimmed = 0
    with database.read() as reading:  # goes on while others write, and holds a few ids at a time
        for some in reading.exec(old.execution_options(yield_per=RECORDS_AT_ONCE)).partitions():
            if time.monotonic() >= over_at:
                return False
            gone = delete(Record).where(col(Record.id).in_(some), latest < cutoff, earliest < cutoff)
            trimmed += retrying(database, partial(_trim_some, sync=sync, gone=gone))
    with database.write() as session:
        session.exec(update(Sync).where(col(Sync.id) == sync.id).values(trimmed_at=now))
    if trimmed:
        log.info("sync.trimmed", sync_id=str(sync.id), records=trimmed)
    return True


def _trim_some(session: Session, sync: Sync, gone: Delete) -> int:
    """Locked like a reading's page, so that what a page updates at this moment is seen to be young."""
    session.exec(select(Sync.id).where(Sync.id == sync.id).with_for_update(key_share=True)).first()
    return session.exec(gone).rowcount
