"""PostgreSQL: every wait is bounded, and the URL has the last word."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import TextClause, make_url, text
from sqlalchemy.exc import OperationalError

from foundation.database import Database
from foundation.migrations import MIGRATION_LOCK, is_current, upgrade
from foundation.postgresql import LIMITS, NETWORK, PostgresqlOptions
from models import MIGRATIONS
from tests.support.databases import run_statement

URL = "postgresql://u:p@h/name"
SHOW = text(
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
    " current_setting('idle_in_transaction_session_timeout')"
)


def url_with(server: str, **query: str) -> str:
    return make_url(server).update_query_dict(query).render_as_string(hide_password=False)


@pytest.fixture
def opened(postgresql_server: str) -> Iterator[list[Database]]:
    databases: list[Database] = []
    yield databases
    for each in databases:
        each.dispose()


def limits_of(opened: list[Database], url: str) -> tuple[str, ...]:
    opened.append(Database(url))
    with opened[-1].read() as session:
        return tuple(session.execute(SHOW).one())


def test_every_wait_has_a_limit(opened: list[Database], postgresql_server: str) -> None:
    """For statements, for locks and for transactions whose client has vanished."""
    assert limits_of(opened, postgresql_server) == ("30s", "10s", "1min")


def test_limits_in_the_url_win(opened: list[Database], postgresql_server: str) -> None:
    """By name, or as options in the way of libpq; what is left open is ours."""
    by_name = url_with(postgresql_server, statement_timeout="7s")
    by_options = url_with(postgresql_server, options="-c lock_timeout=3s -c statement_timeout=0")

    assert limits_of(opened, by_name) == ("7s", "10s", "1min")
    assert limits_of(opened, by_options) == ("0", "3s", "1min")


def test_network_limits_in_the_url_win() -> None:
    """Everything else has our value, and nothing is given twice."""
    options = PostgresqlOptions.of(make_url(f"{URL}?connect_timeout=9&keepalives_idle=60"))

    assert options.url.query == {"connect_timeout": "9", "keepalives_idle": "60"}
    assert set(options.arguments) == set(NETWORK) - {"connect_timeout", "keepalives_idle"}
    assert options.limits == LIMITS


@pytest.mark.parametrize(("value", "threshold"), [("0", None), ("none", None), ("None", None), ("3", 3)])
def test_prepared_statements_can_be_turned_off(value: str, threshold: int | None) -> None:
    """As poolers' manuals spell it, or as psycopg does."""
    options = PostgresqlOptions.of(make_url(f"{URL}?prepare_threshold={value}"))

    assert options.arguments["prepare_threshold"] == threshold
    assert options.is_pooled is (threshold is None)
    assert "prepare_threshold" not in options.url.query


@pytest.mark.parametrize("threshold", ["0", "2"])
def test_a_prepare_threshold_works(opened: list[Database], postgresql_server: str, threshold: str) -> None:
    """Statements are prepared after so many times, or never."""
    database = Database(url_with(postgresql_server, prepare_threshold=threshold), pool_size=1)
    opened.append(database)

    with database.read() as session:
        for _ in range(10):
            session.execute(text("SELECT 4711"))
        prepared = session.execute(text("SELECT statement FROM pg_prepared_statements")).scalars().all()

    assert ("SELECT 4711" in prepared) is (threshold == "2")


def test_behind_a_pooler_limits_end_with_the_transaction(
    opened: list[Database], postgresql_server: str
) -> None:
    """Where the next transaction may meet another session, each brings its limits and leaves none."""
    database = Database(url_with(postgresql_server, prepare_threshold="0"), pool_size=1)
    opened.append(database)

    with database.read() as session:
        assert tuple(session.execute(SHOW).one()) == ("30s", "10s", "1min")
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ROLLBACK")
        cursor = connection.connection.cursor()
        assert cursor.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_statement_ends_at_its_limit(opened: list[Database], postgresql_server: str) -> None:
    """With an error that callers know as trouble of the database."""
    database = Database(url_with(postgresql_server, statement_timeout="50ms"))
    opened.append(database)

    with pytest.raises(OperationalError, match="statement timeout"), database.write() as session:
        session.execute(text("SELECT pg_sleep(20)"))


def test_a_wait_for_a_lock_ends_at_its_limit(opened: list[Database], postgresql_server: str) -> None:
    """Somebody who holds a row for ever stops nobody for ever."""
    database = Database(url_with(postgresql_server, lock_timeout="50ms"))
    opened.append(database)
    lock = text("SELECT pg_advisory_xact_lock(4711)")

    with database.write() as holder:
        holder.execute(lock)
        with pytest.raises(OperationalError, match="lock timeout"), database.write() as other:
            other.execute(lock)


def test_a_migration_waits_longer(opened: list[Database], postgresql_server: str) -> None:
    """One that waits for another, or moves many rows, is not cut off by the limits of daily work."""
    run_statement(postgresql_server, "CREATE DATABASE patient")
    server = make_url(postgresql_server).set(database="patient").render_as_string(hide_password=False)
    other = Database(server)
    hasty = Database(url_with(server, lock_timeout="100ms", statement_timeout="100ms"))
    opened += [other, hasty]
    long_wait = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event = 'advisory' AND clock_timestamp() - query_start > interval '300 ms'"
    )

    with ThreadPoolExecutor(1) as threads, other.read() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        migration = threads.submit(upgrade, hasty, MIGRATIONS)
        while not _found(other, long_wait):
            assert not migration.done(), migration.exception()
        session.rollback()
        migration.result(timeout=30)

    assert is_current(other, MIGRATIONS)


def test_a_vanished_client_gives_its_locks_back(opened: list[Database], postgresql_server: str) -> None:
    """A transaction in which nothing happens is ended by the server."""
    database = Database(url_with(postgresql_server, idle_in_transaction_session_timeout="50ms"))
    patient = Database(postgresql_server)
    opened += [database, patient]
    lock = text("SELECT pg_advisory_xact_lock(4712)")
    vanished = database.engine.connect()

    vanished.execute(lock)
    with patient.write() as session:
        session.execute(lock)

    vanished.invalidate()
    vanished.close()


def test_connections_to_an_old_primary_are_replaced(opened: list[Database], postgresql_server: str) -> None:
    """A session that has turned read-only fails once, and with it goes all that the pool had."""
    database = Database(postgresql_server, pool_size=1)
    opened.append(database)
    with database.read() as session:
        session.execute(text("SET default_transaction_read_only = on"))
        session.commit()

    with pytest.raises(Exception, match="read-only"), database.write() as session:
        session.execute(text("CREATE TABLE after_switchover (id integer)"))
    with database.write() as session:
        session.execute(text("CREATE TABLE after_switchover (id integer)"))
        session.execute(text("DROP TABLE after_switchover"))


def _found(database: Database, query: TextClause) -> int:
    with database.read() as session:
        return int(session.execute(query).scalar_one())
