"""Both databases: instants in UTC, writers that lose nothing, readers that wait for nobody."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from foundation.database import Database, JsonColumn, UtcDateTime, check_database_url, new_id
from tests.foundation.increments import increment

INCREMENTS = Path(__file__).with_name("increments.py")
metadata = MetaData()
instants = Table("instants", metadata, Column("id", Integer, primary_key=True), Column("at", UtcDateTime))
documents = Table("documents", metadata, Column("id", Integer, primary_key=True), Column("body", JsonColumn))


@pytest.fixture
def opened(empty_database_url: str) -> Iterator[Database]:
    """A database with tables of this test's own."""
    database = Database(empty_database_url)
    metadata.create_all(database.engine)
    yield database
    database.dispose()


@pytest.fixture
def counter(empty_database_url: str) -> Iterator[Database]:
    """A database with one number in it, which is zero."""
    database = Database(empty_database_url)
    with database.write() as session:
        session.execute(text("CREATE TABLE counter (value INTEGER NOT NULL)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    yield database
    database.dispose()


def counted(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT value FROM counter")).scalar_one())


NEPAL = timezone(timedelta(hours=5, minutes=45))
INSTANTS = [
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=NEPAL),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(-timedelta(hours=12))),
]


@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_instant_comes_back_aware_and_in_utc(opened: Database, at: datetime) -> None:
    """The same instant comes back in UTC, whatever zone it was given in."""
    with opened.write() as session:
        session.execute(insert(instants).values(at=at))

    with opened.read() as session:
        back = session.execute(select(instants.c.at)).scalar_one()

    assert back == at
    assert back.utcoffset() == timedelta(0)


def test_instant_may_be_absent(opened: Database) -> None:
    """No instant stays no instant."""
    with opened.write() as session:
        session.execute(insert(instants).values(at=None))

    with opened.read() as session:
        assert session.execute(select(instants.c.at)).scalar_one() is None


def test_naive_instant_is_refused(opened: Database) -> None:
    """An instant without a time zone never reaches the database."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001  # the very thing to be refused

    with pytest.raises(StatementError, match="naive datetime"), opened.write() as session:
        session.execute(insert(instants).values(at=naive))


def test_instants_compare_in_the_database(opened: Database) -> None:
    """Comparisons in a query follow time, also between instants that were given in different zones."""
    early, late = datetime(2026, 1, 1, 10, tzinfo=NEPAL), datetime(2026, 1, 1, 5, tzinfo=UTC)
    with opened.write() as session:
        session.execute(insert(instants), [{"at": late}, {"at": early}])

    with opened.read() as session:
        found = session.execute(select(instants.c.at).where(instants.c.at < late)).scalars().all()
        ordered = session.execute(select(instants.c.at).order_by(instants.c.at)).scalars().all()

    assert found == [early]
    assert ordered == [early, late]


@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1800, 1, 1), max_value=datetime(2900, 1, 1)))  # noqa: DTZ001  # hypothesis wants naive bounds
def test_bound_instants_are_utc(at: datetime) -> None:
    """Whatever zone an instant has, what goes to the database is the same instant in UTC."""
    bound = UtcDateTime().process_bind_param(at, dialect=None)  # type: ignore[arg-type]  # unused

    assert bound is not None
    assert bound.timestamp() == pytest.approx(at.timestamp(), abs=1e-5)  # `==` is false within a fold
    assert bound.tzinfo is UTC


def test_json_comes_back_as_it_was(opened: Database) -> None:
    """A JSON column keeps nesting, numbers, texts of any script and null."""
    body = {"a": [1, 2.5, None, True, {"ü": "✓ \U0001f6a2"}], "": {}, "big": 2**53}

    with opened.write() as session:
        session.execute(insert(documents).values(body=body))

    with opened.read() as session:
        assert session.execute(select(documents.c.body)).scalar_one() == body


def test_write_rolls_back_when_it_raises(counter: Database) -> None:
    """A block that raises leaves nothing behind."""

    def write_and_fail() -> None:
        with counter.write() as session:
            session.execute(text("UPDATE counter SET value = 7"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()

    assert counted(counter) == 0


def test_database_is_usable_after_a_failed_write(counter: Database) -> None:
    """An error gives the connection and the turn back."""
    for _ in range(20):
        with pytest.raises(ZeroDivisionError), counter.write():
            raise ZeroDivisionError

    increment(counter, 1)

    assert counted(counter) == 1


def test_read_changes_nothing(counter: Database) -> None:
    """What a read block writes by mistake is not kept."""
    with counter.read() as session:
        session.execute(text("UPDATE counter SET value = 7"))

    assert counted(counter) == 0


def test_reader_does_not_wait_for_a_writer(counter: Database) -> None:
    """While a write transaction is open, a read sees the last committed state at once."""
    with counter.write() as session:
        session.execute(text("UPDATE counter SET value = 7"))

        assert counted(counter) == 0

    assert counted(counter) == 7


def test_reader_sees_one_snapshot_of_sqlite(tmp_path: Path) -> None:
    """On SQLite one read block sees one state, also when somebody writes between its queries."""
    database = Database(f"sqlite:///{tmp_path / 'one.db'}")
    with database.write() as session:
        session.execute(text("CREATE TABLE counter (value INTEGER NOT NULL)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    with database.read() as session:
        before = session.execute(text("SELECT value FROM counter")).scalar_one()
        increment(database, 1)
        after = session.execute(text("SELECT value FROM counter")).scalar_one()

    assert before == after == 0
    database.dispose()


def test_sqlite_locks_when_a_write_begins(tmp_path: Path) -> None:
    """A write transaction holds the write lock from its first statement, be that only a SELECT."""
    path = tmp_path / "one.db"
    database = Database(f"sqlite:///{path}")
    with database.write() as session:
        session.execute(text("CREATE TABLE counter (value INTEGER NOT NULL)"))
    other = sqlite3.connect(path, timeout=0, isolation_level=None)

    with database.write() as session:
        session.execute(text("SELECT * FROM counter")).all()
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.execute("BEGIN IMMEDIATE")

    other.close()
    database.dispose()


def test_sqlite_is_set_up_for_concurrency(tmp_path: Path) -> None:
    """Readers and the writer get a write-ahead log, a long wait for locks, and foreign keys."""
    database = Database(f"sqlite:///{tmp_path / 'one.db'}")

    for opened in (database.write, database.read):
        with opened() as session:
            found = {
                name: session.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
            }
        assert found == {"journal_mode": "wal", "busy_timeout": 30_000, "foreign_keys": 1, "synchronous": 1}

    database.dispose()


def test_a_writer_of_a_new_file_is_waited_for(tmp_path: Path) -> None:
    """Processes that start together on a new file wait for each other, and not for ever."""
    path = tmp_path / "new.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    hasty, patient = (Database(f"sqlite:///{path}", busy_timeout_s=limit_s) for limit_s in (0.2, 30))

    began = time.monotonic()
    with pytest.raises(OperationalError, match="locked"), hasty.read() as session:
        session.execute(text("SELECT 1"))
    assert time.monotonic() - began >= 0.2

    writer.execute("COMMIT")
    with patient.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    for each in (hasty, patient):
        each.dispose()
    writer.close()


def test_threads_lose_no_update(counter: Database) -> None:
    """Read-modify-write in many threads at once loses nothing."""
    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(increment, counter, 25) for _ in range(8)]:
            done.result()

    assert counted(counter) == 200


def test_processes_lose_no_update(counter: Database) -> None:
    """Read-modify-write in several processes and threads at once loses nothing."""
    url = counter.url.render_as_string(hide_password=False)
    command = [sys.executable, str(INCREMENTS), url, "50"]

    processes = [subprocess.Popen(command) for _ in range(3)]
    increment(counter, 50)
    statuses = [process.wait(timeout=60) for process in processes]

    assert statuses == [0, 0, 0]
    assert counted(counter) == 200


def test_writers_take_turns(tmp_path: Path) -> None:
    """On SQLite nobody starves: a thread that writes all the time lets the others in."""
    database = Database(f"sqlite:///{tmp_path / 'one.db'}")
    with database.write() as session:
        session.execute(text("CREATE TABLE counter (value INTEGER NOT NULL)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    others = [Database(f"sqlite:///{tmp_path / 'one.db'}") for _ in range(3)]
    finished = threading.Event()

    def write_all_the_time() -> None:
        while not finished.is_set():
            increment(database, 1)

    busy = threading.Thread(target=write_all_the_time)
    busy.start()
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(increment, other, 20) for other in others]:
            done.result(timeout=30)
    finished.set()
    busy.join()

    assert counted(database) >= 60
    for each in (database, *others):
        each.dispose()


def test_plain_postgresql_url_means_psycopg(postgresql_server: str) -> None:
    """A URL as every hoster gives it works, without naming a driver."""
    plain = postgresql_server.replace("postgresql+psycopg://", "postgresql://")

    database = Database(plain)
    with database.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1

    assert not database.is_sqlite
    assert database.engine.driver == "psycopg"
    database.dispose()


def test_errors_name_no_values(opened: Database) -> None:
    """A failed statement's error shows no parameters: they may be a customer's data."""
    twice = [{"id": 1, "body": {"name": "canary"}}] * 2

    with pytest.raises(IntegrityError) as caught, opened.write() as session:
        session.execute(insert(documents), twice)

    assert "canary" not in str(caught.value)


def test_ids_are_in_the_order_of_their_time() -> None:
    """As RFC 9562 has it, and no two are the same."""
    before_ms = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after_ms = time.time_ns() // 1_000_000

    assert before_ms <= ids[0].int >> 80 <= ids[-1].int >> 80 <= after_ms
    assert ids == sorted(set(ids))
    assert {(each.version, each.variant) for each in ids} == {(7, RFC_4122)}


def test_only_one_is_alone(empty_database_url: str) -> None:
    """Over processes, for each purpose apart, and until the block ends."""
    database, other = Database(empty_database_url), Database(empty_database_url)

    with database.alone("this") as first, other.alone("this") as second, other.alone("that") as third:
        assert (first, second, third) == (True, False, True)
    with other.alone("this") as again:
        assert again

    database.dispose()
    other.dispose()


def test_now_is_the_clock_that_all_share(opened: Database) -> None:
    """Aware, in UTC, and going on within a transaction."""
    with opened.write() as session:
        first, second = opened.now(session), opened.now(session)

    assert first.utcoffset() == timedelta(0)
    assert first <= second
    assert abs(second - datetime.now(UTC)) < timedelta(seconds=30)


def test_what_must_last_is_synced(tmp_path: Path) -> None:
    """A durable database syncs each commit of SQLite to the disk."""
    database = Database(f"sqlite:///{tmp_path / 'one.db'}", durable=True)

    with database.write() as session:
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2

    database.dispose()


USABLE = [
    "sqlite:///x.db",
    "sqlite:////var/lib/x.db",
    "postgresql://u:p@h/name",
    "postgresql+psycopg://u:p@h:5432/name?prepare_threshold=0&connect_timeout=3&statement_timeout=5s",
]
UNUSABLE = [
    "",
    "/var/lib/hunter2.db",
    "mysql://u:hunter2@h/name",
    "postgresql+asyncpg://u:hunter2@h/name",
    "postgresql://u:hunter2@h:99999999x/name",
    "postgresql://u:hunter2@h/name?prepare_threshold=hunter2",
    "sqlite://",
    "sqlite:///:memory:",
]


@pytest.mark.parametrize("url", USABLE)
def test_usable_urls_are_accepted(url: str) -> None:
    """A file of SQLite, or PostgreSQL with options."""
    check_database_url(url)


@pytest.mark.parametrize("url", UNUSABLE)
def test_unusable_urls_are_refused_in_one_line(url: str) -> None:
    """The refusal says what was expected and quotes nothing of the URL."""
    with pytest.raises(ValueError, match="expected") as refused:
        check_database_url(url)

    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)
