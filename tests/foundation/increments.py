"""Read, add one, write: many times, as a process of its own. Run with a database URL and a count."""

import sys

from sqlalchemy import text

from foundation.database import Database


def increment(database: Database, times: int) -> None:
    for _ in range(times):
        with database.write() as session:
            # a row lock where the database has them; SQLite's write lock is taken when the transaction begins
            lock = "" if database.is_sqlite else " FOR UPDATE"
            value = session.execute(text(f"SELECT value FROM counter{lock}")).scalar_one()  # noqa: S608  # no input
            session.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})


if __name__ == "__main__":
    opened = Database(sys.argv[1])
    increment(opened, int(sys.argv[2]))
    opened.dispose()
