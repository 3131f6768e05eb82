"""Rows for tests: complete ones, of which a test names only what it is about."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlmodel import select

from foundation.database import Database
from models import ChangeCursor, Connection, Lane, State, Step, Tenant, Work
from models.lifecycle import WITH_SYNC
from worker.queue.verdict import Claim

CLAIMED = {each.name for each in fields(Claim)}

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
        "tenant_id": tenant.id,
        "state": state,
        "provider": "stripe",
        "slot": f"slot{uuid4().hex[:8]}",
    }
    if state not in {State.AWAITING_CREDENTIAL, State.REQUESTED, State.REMOVED}:
        defaults["remote_credential_id"] = "cred_1"
    if state in WITH_SYNC:
        defaults |= {
            "remote_sync_id": f"sync_{uuid4().hex[:8]}",
            "remote_stream_id": "stream_1",
            "applied_revision": columns.get("revision", 1),
            "backfill_started_at": LONG_AGO,
        }
    return Connection(**defaults | columns)


def a_work(connection: Connection, **columns: Any) -> Work:
    """The work that the connection's state asks for, due long ago."""
    lane = columns.get("lane", Lane.LIFECYCLE)
    step = Step.UPDATE if lane is Lane.CHANGES else connection.next_step
    due_at = columns.get("due_at", LONG_AGO if step else None)
    defaults: dict[str, Any] = {
        "connection_id": connection.id,
        "tenant_id": connection.tenant_id,
        "step": step or Step.POLL,
        "due_at": due_at,
        "turn_at": due_at,
    }
    return Work(**defaults | columns)


def add(database: Database, *rows: Any) -> None:
    with database.write() as session:
        for row in rows:
            session.add(row)
            session.flush()


def added(
    database: Database, tenant: Tenant | None = None, *, work: dict[str, Any] | None = None, **columns: Any
) -> Connection:
    """A stored connection with its work, of a tenant of its own unless one is given."""
    if tenant is None:
        tenant = a_tenant()
        add(database, tenant)
    connection = a_connection(tenant, **columns)
    add(database, connection, a_work(connection, **work or {}))
    return connection


def stored(database: Database, connection: Connection) -> Connection:
    """The row as it is now."""
    with database.read() as session:
        return session.get_one(Connection, connection.id)


def work_of(database: Database, connection: Connection, lane: Lane = Lane.LIFECYCLE) -> Work:
    """The connection's work as it is now."""
    with database.read() as session:
        return session.get_one(Work, (connection.id, lane))


def let_pass(database: Database, time: timedelta) -> None:
    """Let so much time go by for everything that is stored, whose clock may be the database server's."""
    with database.write() as session:
        for kind, columns in _INSTANTS.items():
            for row in session.exec(select(kind)):
                for column in columns:
                    at = getattr(row, column)
                    setattr(row, column, at - time if at is not None else None)


_INSTANTS: dict[Any, tuple[str, ...]] = {
    Connection: ("refused_at", "create_sent_at", "backfill_started_at"),
    Work: ("due_at", "turn_at", "leased_until"),
    ChangeCursor: ("due_at", "leased_until", "caught_up_at"),
}


def all_of(database: Database, kind: Any) -> list[Any]:
    with database.read() as session:
        return list(session.exec(select(kind)))


def a_claim(connection: Connection, tenant: Tenant | None = None, **details: Any) -> Claim:
    """What a worker holds that has taken this connection's work."""
    tenant = tenant or a_tenant(id=connection.tenant_id)
    of_connection = {
        name: getattr(connection, name) for name in CLAIMED if name in type(connection).model_fields
    }
    defaults: dict[str, Any] = {
        "connection_id": connection.id,
        "external_id": tenant.external_id,
        "tenant_name": tenant.name,
        "plan": tenant.plan,
        "earlier_create_at": connection.create_sent_at,
        "has_given_credential": "credential" in connection.clock,
        "step": connection.next_step or Step.POLL,
        "fence": 1,
        "attempts": 1,
    }
    return Claim(**of_connection | defaults | details)
