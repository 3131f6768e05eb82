"""SQLite and PostgreSQL behind one face: short write transactions, read transactions, UTC everywhere."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import JSON, DateTime, Dialect, Engine, create_engine, event, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session
from uuid_utils.compat import uuid7

from foundation.postgresql import PostgresqlOptions, postgresql_engine
from foundation.turns import WriterTurns, alone

SQLITE_BUSY_TIMEOUT_S: Final = 30.0
RETRY_S: Final = 0.01
WRITES: Final = "gangway_writes"
POSTGRESQL_DRIVERS: Final = ("postgresql", "postgresql+psycopg")
EXPECTED_URL: Final = "expected sqlite:///path or postgresql://user:password@host/name"

JsonColumn = JSON().with_variant(JSONB(), "postgresql")
"""Column type for JSON values: JSONB on PostgreSQL, so that containment can use an index."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, also on a database that drops time zones (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a time zone, instants here are UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def storable(text: str, *, max_length: int) -> str:
    """A text that others wrote as every database can keep it: bounded, without NUL and half characters."""
    return text[:max_length].encode(errors="replace").decode().replace("\x00", "\ufffd")


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562): it begins with the time, so what is new joins an index at its end."""
    return uuid7()


def check_database_url(text: str) -> None:
    """Raise `ValueError` if this is no URL of a database that we support. The error never quotes the URL."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(EXPECTED_URL) from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ValueError("expected a file, as in sqlite:///path, since processes share the database")
    elif url.drivername in POSTGRESQL_DRIVERS:
        PostgresqlOptions.of(url)
    else:
        raise ValueError(EXPECTED_URL)


class Database:
    """One database: `write()` and `read()` each open one short transaction.

    On SQLite a write transaction takes the write lock when it begins (`BEGIN IMMEDIATE`). Without it,
    concurrent read-modify-write transactions lose updates silently.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        pool_size: int = 10,
        durable: bool = False,
        busy_timeout_s: float = SQLITE_BUSY_TIMEOUT_S,
    ) -> None:
        """`durable`: what is committed survives a power loss, also on SQLite, where each commit then costs a
        sync of the disk. `busy_timeout_s`: how long a write waits for other writers on SQLite.
        """
        self.url = make_url(url)
        self._turns: WriterTurns | None = None
        self._writer: Engine
        self._reader: Engine
        if self.is_sqlite:
            writer = _sqlite_engine(self.url, pool_size=1, durable=durable, busy_timeout_s=busy_timeout_s)
            self._writer = writer.execution_options(**{WRITES: True})
            self._reader = _sqlite_engine(self.url, pool_size=pool_size, busy_timeout_s=busy_timeout_s)
            if self.url.database:
                self._turns = WriterTurns(Path(self.url.database), limit_s=busy_timeout_s)
        else:
            self._writer = self._reader = postgresql_engine(self.url, pool_size=pool_size)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def engine(self) -> Engine:
        """The engine that may write."""
        return self._writer

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that commits at the end of the block and rolls back when it raises."""
        with self._turn(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that changes nothing and, on SQLite, waits for no writer."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Try to take an exclusive lock for the duration of the block. Released when the process dies."""
        if not self.is_sqlite:
            with self.read() as session:
                lock = func.pg_try_advisory_xact_lock(func.hashtext(what))
                yield bool(session.scalar(select(lock)))
        elif self.url.database:
            with alone(Path(f"{self.url.database}-{what}")) as is_alone:
                yield is_alone
        else:
            yield True

    def now(self, session: Session) -> datetime:
        """Return the time by the clock that all processes share: on PostgreSQL that of its server."""
        if self.is_sqlite:
            return utc_now()  # its processes share this machine
        now: datetime = session.execute(select(func.clock_timestamp(type_=UtcDateTime))).scalar_one()
        return now

    def _turn(self) -> AbstractContextManager[None]:
        return self._turns.turn() if self._turns else nullcontext()

    def dispose(self) -> None:
        if self._turns:
            self._turns.close()
        self._writer.dispose()
        self._reader.dispose()


def _use_write_ahead_log(cursor: sqlite3.Cursor, patience_s: float) -> None:
    """Switch to the log. SQLite does not wait for a writer of a new file here, whatever its busy timeout."""
    until = time.monotonic() + patience_s
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _sqlite_engine(url: URL, *, pool_size: int, busy_timeout_s: float, durable: bool = False) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=busy_timeout_s,
        hide_parameters=True,  # they are a customer's data, and errors are logged
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: object, _record: object) -> None:
        cursor: sqlite3.Cursor = connection.cursor()  # type: ignore[attr-defined]  # DB-API has no types
        _use_write_ahead_log(cursor, busy_timeout_s)
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
