"""Retention: history and secrets that are older than the settings allow are deleted, in bounded steps."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Table, and_, delete, not_, select, update
from sqlmodel import col

from foundation.database import Database
from models import Connection, Row, State, Tenant
from worker.runtime import Runtime

log = structlog.get_logger()

ROWS_PER_STEP: Final = 1_000
TENANTS_PER_STEP: Final = 100
OF_A_TENANT: Final[tuple[Table, ...]] = tuple(
    Row.metadata.tables[name] for name in ("attempt", "transition", "inbound_event", "work", "connection")
)
HISTORY: Final[tuple[Table, ...]] = tuple(
    Row.metadata.tables[name] for name in ("attempt", "transition", "inbound_event")
)


def purge(runtime: Runtime) -> None:
    """Delete what is too old, a bounded number of rows per transaction."""
    database, settings = runtime.database, runtime.settings
    with database.read() as session:
        now = database.now(session)
    before = now - timedelta(days=settings.history_days)
    deleted = {table.name: _delete_history(database, table, before) for table in HISTORY}
    erased = _erase_secrets(database, now - timedelta(days=settings.failed_secret_days))
    strangers = _forget_strangers(database, now - timedelta(days=settings.unannounced_days))
    log.info("maintenance.purged", secrets=erased, tenants_never_announced=strangers, **deleted)


def oldest_id_of(moment: datetime) -> UUID:
    """The smallest id that a row made at this moment can have: ids begin with their time (RFC 9562)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)


def _delete_history(database: Database, table: Table, before: datetime) -> int:
    """By the primary key, which is in the order of time: no index of its own is needed."""
    total = 0
    while True:
        some = select(table.c.id).where(table.c.id < oldest_id_of(before)).order_by(table.c.id)
        with database.write() as session:
            old = delete(table).where(table.c.id.in_(some.limit(ROWS_PER_STEP).scalar_subquery()))
            count = session.connection().execute(old).rowcount
        total += count
        if count < ROWS_PER_STEP:
            return total


def _erase_secrets(database: Database, before: datetime) -> int:
    """Sealed credentials of connections that failed before their credential could be imported."""
    is_stale = and_(
        col(Connection.state).in_([State.FAILED, State.AWAITING_CREDENTIAL, State.REMOVED]),
        col(Connection.sealed_credential).is_not(None),
        col(Connection.updated_at) < before,
    )
    stale = select(col(Connection.id)).where(is_stale).limit(ROWS_PER_STEP)
    locked = stale.order_by(col(Connection.id)).with_for_update(skip_locked=True, key_share=True)
    total = 0
    while True:
        with database.write() as session:
            found = list(session.scalars(locked))
            erase = update(Connection).where(col(Connection.id).in_(found))
            session.connection().execute(erase.values(sealed_credential=None))
        total += len(found)
        if len(found) < ROWS_PER_STEP:
            return total


def _forget_strangers(database: Database, before: datetime) -> int:
    """Tenants that events named, but whose `tenant.created` never came: a mistyped id, most likely."""
    stale = (
        select(col(Tenant.id))
        .where(not_(col(Tenant.is_announced)), col(Tenant.updated_at) < before)
        .limit(TENANTS_PER_STEP)
    )
    total = 0
    while True:
        with database.write() as session:
            locked = stale.with_for_update(skip_locked=True)
            found = list(session.scalars(locked))
            for table in OF_A_TENANT:
                session.connection().execute(delete(table).where(table.c.tenant_id.in_(found)))
            session.connection().execute(delete(Tenant).where(col(Tenant.id).in_(found)))
        total += len(found)
        if len(found) < TENANTS_PER_STEP:
            return total
