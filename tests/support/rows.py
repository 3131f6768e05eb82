"""Rows for tests: complete ones, of which a test names only what it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlmodel import select

from foundation.database import Database
from models import Connection, State, Tenant
from worker.steps.verdict import Claim

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def a_tenant(**columns: Any) -> Tenant:
    """A customer that has signed up."""
    defaults: dict[str, Any] = {"external_id": f"org_{uuid4().hex}", "plan": "default", "is_announced": True}
    return Tenant(**defaults | columns)


def a_connection(tenant: Tenant, **columns: Any) -> Connection:
    """One of its connections; the credential is at the API, once the state says so."""
    state = columns.get("state", State.REQUESTED)
    defaults: dict[str, Any] = {
        "id": uuid4(),
        "tenant_id": tenant.id,
        "state": state,
        "provider": "stripe",
        "slot": f"slot{uuid4().hex[:8]}",
        "due_at": LONG_AGO,
    }
    if state not in {State.AWAITING_CREDENTIAL, State.REQUESTED, State.REMOVED}:
        defaults["remote_credential_id"] = "cred_1"
    if state in {State.BACKFILLING, State.READY, State.DEGRADED, State.PAUSED}:
        defaults |= {
            "remote_sync_id": f"sync_{uuid4().hex[:8]}",
            "remote_stream_id": "stream_1",
            "applied_revision": columns.get("revision", 1),
            "backfill_started_at": LONG_AGO,
        }
    return Connection(**defaults | columns)


def add(database: Database, *rows: Any) -> None:
    with database.write() as session:
        for row in rows:
            session.add(row)
            session.flush()


def added(database: Database, tenant: Tenant | None = None, **columns: Any) -> Connection:
    """A stored connection, of a tenant of its own unless one is given."""
    if tenant is None:
        tenant = a_tenant()
        add(database, tenant)
    connection = a_connection(tenant, **columns)
    add(database, connection)
    return connection


def stored(database: Database, connection: Connection) -> Connection:
    """The row as it is now."""
    with database.read() as session:
        return session.get_one(Connection, connection.id)


def all_of(database: Database, kind: Any) -> list[Any]:
    with database.read() as session:
        return list(session.exec(select(kind)))


def a_claim(connection: Connection, tenant: Tenant | None = None, **details: Any) -> Claim:
    """What a worker holds that has taken this row."""
    return Claim(connection, tenant or a_tenant(id=connection.tenant_id), **details)
