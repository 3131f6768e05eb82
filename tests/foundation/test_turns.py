"""Turns at writing to SQLite: nobody waits for ever, not even for a process that is frozen."""

import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from foundation.database import Database
from foundation.turns import DatabaseBusyError, holder_of

FREEZE = """
import os, signal, sys
from foundation.database import Database
with Database(sys.argv[1]).write():
    print("holding", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
print("done", flush=True)
sys.stdin.read()
"""
LIMIT_S = 0.2


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'one.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url, busy_timeout_s=LIMIT_S)
    yield database
    database.dispose()


@pytest.fixture
def frozen(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has been stopped in the middle of its turn."""
    command = [sys.executable, "-c", FREEZE, url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    yield process
    process.kill()
    process.communicate()


def wait_until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def write(database: Database) -> None:
    with database.write() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS written (id INTEGER)"))


def can_write(database: Database) -> bool:
    try:
        write(database)
    except DatabaseBusyError:
        return False
    return True


def turns_file(url: str) -> Path:
    return Path(f"{url.removeprefix('sqlite:///')}-turns")


def test_a_frozen_holder_is_named_after_the_limit(
    database: Database, url: str, frozen: subprocess.Popen[str]
) -> None:
    """The wait ends with an error that names the lock's file and who holds it; the log says it once."""
    with capture_logs() as logs:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(DatabaseBusyError) as refused:
                write(database)
            assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 5

    assert isinstance(refused.value, OperationalError)
    assert str(turns_file(url)) in str(refused.value)
    assert f"process {frozen.pid}" in str(refused.value)
    assert [line["holder"] for line in logs if line["event"] == "database.busy"] == [frozen.pid]


def test_readers_do_not_wait_for_a_frozen_holder(database: Database, frozen: subprocess.Popen[str]) -> None:
    """What was committed can be read all the time."""
    with database.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_a_thawed_holder_lets_all_go_on(database: Database, url: str, frozen: subprocess.Popen[str]) -> None:
    """Who gave up can write again, and keeps nobody out by the turn that it did not wait for."""
    another = Database(url, busy_timeout_s=LIMIT_S)
    assert not can_write(database)
    assert not can_write(another)

    frozen.send_signal(signal.SIGCONT)

    assert frozen.stdout is not None
    assert frozen.stdout.readline() == "done\n"
    wait_until(lambda: holder_of(turns_file(url)) is None)  # the waits that were given up are over, too
    write(database)
    write(another)
    another.dispose()


def test_a_killed_holder_holds_nothing(database: Database, frozen: subprocess.Popen[str]) -> None:
    """Its turn ends with it."""
    assert not can_write(database)

    frozen.kill()

    wait_until(lambda: can_write(database))


def test_giving_up_leaves_one_thread_at_most(database: Database, frozen: subprocess.Popen[str]) -> None:
    """However often a writer tries, one wait goes on in the kernel's queue."""
    for _ in range(5):
        assert not can_write(database)

    assert [each.name for each in threading.enumerate()].count("turn") == 1


def test_a_thread_that_holds_the_turn_is_waited_for_within_the_limit(database: Database) -> None:
    """Threads of one process wait no longer than those of others."""
    with database.write(), pytest.raises(DatabaseBusyError), database.write():
        pass

    write(database)


def test_a_turn_that_comes_in_time_is_taken(url: str, database: Database) -> None:
    """A writer that has to wait gets its turn as soon as the other's has ended."""
    patient = Database(url, busy_timeout_s=30)
    waiting = threading.Thread(target=write, args=(patient,))

    with database.write():
        waiting.start()
        wait_until(lambda: any(each.name == "turn" for each in threading.enumerate()))
    waiting.join(10)

    assert not waiting.is_alive()
    patient.dispose()


def test_the_error_survives_a_journey() -> None:
    """It may cross processes."""
    error = DatabaseBusyError("/x/gangway.db-turns", 30.0, 4711)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own

    assert str(back) == str(error) == "/x/gangway.db-turns: held by process 4711 for more than 30 s"
    assert back.holder == 4711


def test_nobody_holds_what_is_not_locked(tmp_path: Path) -> None:
    """A file without a lock, or no file, has no holder."""
    (tmp_path / "free").touch()

    assert holder_of(tmp_path / "free") is None
    assert holder_of(tmp_path / "missing") is None
