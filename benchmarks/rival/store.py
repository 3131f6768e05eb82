"""The rows: one SQLite file in WAL mode, a connection to it for each thread."""

import sqlite3
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import uuid4

from benchmarks.rival.settings import DATABASE

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tenant (
    id TEXT PRIMARY KEY, external_id TEXT NOT NULL UNIQUE, name TEXT, created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS connection (
    id TEXT PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenant (id), provider TEXT NOT NULL,
    state TEXT NOT NULL, secret TEXT, remote_credential_id TEXT, remote_sync_id TEXT,
    created_at TEXT NOT NULL, ready_at TEXT, UNIQUE (tenant_id, provider)
) WITHOUT ROWID;
"""
_local = threading.local()


class Signup(NamedTuple):
    """What a webhook asks for."""

    external_id: str
    name: str
    provider: str
    secret: str


class Row(NamedTuple):
    """A connection as its actors see it."""

    id: str
    external_id: str
    name: str
    provider: str
    state: str
    secret: str | None
    remote_credential_id: str | None
    remote_sync_id: str | None


def database() -> sqlite3.Connection:
    """This thread's connection."""
    if not hasattr(_local, "database"):
        _local.database = sqlite3.connect(DATABASE, timeout=30, isolation_level=None)
        _local.database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
    known: sqlite3.Connection = _local.database
    return known


def create_tables() -> None:
    database().executescript(SCHEMA)


def add(signups: Iterable[Signup]) -> list[str]:
    """Store these customers in one transaction; returns the ids of their connections, old ones included."""
    db = database()
    now = _now()
    db.execute("BEGIN IMMEDIATE")
    try:
        ids = [_add(db, signup, now) for signup in signups]
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    return ids


def _add(db: sqlite3.Connection, signup: Signup, now: str) -> str:
    tenant_id, connection_id = str(uuid4()), str(uuid4())
    db.execute(
        "INSERT INTO tenant VALUES (?, ?, ?, ?) ON CONFLICT (external_id) DO NOTHING",
        (tenant_id, signup.external_id, signup.name, now),
    )
    if db.execute("SELECT changes()").fetchone()[0]:
        db.execute(
            "INSERT INTO connection (id, tenant_id, provider, state, secret, created_at)"
            " VALUES (?, ?, ?, 'requested', ?, ?)",
            (connection_id, tenant_id, signup.provider, signup.secret, now),
        )
        return connection_id
    found = db.execute(
        "SELECT c.id FROM connection c JOIN tenant t ON t.id = c.tenant_id WHERE t.external_id = ?",
        (signup.external_id,),
    )
    return str(found.fetchone()[0])


def get(connection_id: str) -> Row:
    found = database().execute(
        "SELECT c.id, t.external_id, t.name, c.provider, c.state, c.secret, c.remote_credential_id,"
        " c.remote_sync_id FROM connection c JOIN tenant t ON t.id = c.tenant_id WHERE c.id = ?",
        (connection_id,),
    )
    return Row(*found.fetchone())


def sync_id_of(connection_id: str) -> str | None:
    """The sync to poll; None once it is ready."""
    found = database().execute(
        "SELECT remote_sync_id FROM connection WHERE id = ? AND ready_at IS NULL", (connection_id,)
    )
    row = found.fetchone()
    return str(row[0]) if row else None


def captured(row: Row, credential_id: str) -> Row:
    """Record the credential; the secret is not needed any more."""
    database().execute(
        "UPDATE connection SET state = 'captured', remote_credential_id = ?, secret = NULL WHERE id = ?",
        (credential_id, row.id),
    )
    return row._replace(state="captured", remote_credential_id=credential_id, secret=None)


def created(row: Row, sync_id: str) -> None:
    database().execute(
        "UPDATE connection SET state = 'backfilling', remote_sync_id = ? WHERE id = ?", (sync_id, row.id)
    )


def ready(connection_id: str) -> None:
    database().execute(
        "UPDATE connection SET state = 'ready', ready_at = ? WHERE id = ? AND ready_at IS NULL",
        (_now(), connection_id),
    )


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
