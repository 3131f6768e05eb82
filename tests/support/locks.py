"""Waiting for a moment that only another transaction brings about."""

from sqlalchemy import text

from foundation.database import Database


def wait_until_blocked(database: Database) -> None:
    """Wait until a transaction waits for a lock that another one holds. For PostgreSQL."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(2_000):
        with database.read() as session:
            if session.execute(waiting).scalar_one():
                return
    raise AssertionError("nobody waits for the lock")
