"""Health: true, cheap and bounded, whatever the database and the broker do."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from foundation.database import Database
from foundation.queue import Role
from tests.support.web import TestClient
from worker.app import configure
from worker.settings import Settings
from worker.web import create_app, readiness
from worker.web.readiness import Probe, Storage


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings, configure(settings, Role.PUBLISHER))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_database_is_told_from_broker(settings: Settings) -> None:
    """Without a broker webhooks can still be stored, so the process is ready, and says what it lacks."""
    with serving(settings) as web:
        answer = web.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "database": "ok",
        "broker": "unreachable",
        "messages_waiting": None,
    }


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_not_migrated_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    """A database without our tables takes no webhooks: the process runs but is not ready."""
    empty = SecretStr(f"sqlite:///{tmp_path / 'empty.db'}")

    with serving(settings.model_copy(update={"database_url": empty})) as web:
        assert web.get("/healthz").status_code == 200
        answer = web.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["database"] == "not migrated"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_locked_database_is_not_ready(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing can be written the answer is 503, and it comes soon."""
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.2)
    locker = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    with serving(settings) as web:
        locker.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        answers = [web.get("/readyz") for _ in range(5)]
        took = time.monotonic() - begun
        locker.execute("ROLLBACK")
        locker.close()

    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["database"] for answer in answers} == {"too slow"}
    assert took < 5


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_full_database_is_not_ready(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that can be read but not written is told as such."""
    storage = Storage(database)
    assert storage.check() == "ok"

    monkeypatch.setattr(readiness, "WRITE_PROBE_EVERY_S", 0.0)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")

    assert storage.check() == "not writable"


def test_check_leaves_no_trace(database: Database) -> None:
    """Trying a write changes nothing that anybody sees, and a write that happened spares the try."""
    storage = Storage(database)

    assert [storage.check(), storage.check()] == ["ok", "ok"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_checks_take_no_turn_of_a_busy_intake(database: Database) -> None:
    """While webhooks are being stored, being asked for readiness takes no write lock."""
    storage = Storage(database)
    assert storage.check() == "ok"
    storage.note_write()

    with database.write():
        assert storage.check() == "ok"


def test_callers_share_one_question() -> None:
    """Many callers at once, and again within a second, cost one question."""
    asked = []
    probe = Probe(lambda: asked.append(1) or len(asked), late=0)

    async def ask() -> list[int]:
        first = await asyncio.gather(*(probe.answer() for _ in range(10)))
        return [*first, await probe.answer()]

    assert asyncio.run(ask()) == [1] * 11


def test_stale_answer_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer counts for about a second."""
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    asked = []
    probe = Probe(lambda: asked.append(1) or len(asked), late=0)

    async def ask() -> list[int]:
        return [await probe.answer(), await probe.answer()]

    assert asyncio.run(ask()) == [1, 2]


def test_question_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers of a question that hangs get the late answer, and no second thread hangs beside the first."""
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.05)
    release, asked = threading.Event(), []

    def hang() -> str:
        asked.append(1)
        release.wait(30)
        return "ok"

    probe = Probe(hang, late="too slow")

    async def ask() -> list[str]:
        return [await probe.answer() for _ in range(5)]

    answers = asyncio.run(ask())
    release.set()

    assert (answers, len(asked)) == (["too slow"] * 5, 1)


def test_question_that_breaks_has_the_late_answer() -> None:
    """An error that nobody foresaw is not taken for health."""

    def broken() -> str:
        raise ValueError("no")

    assert asyncio.run(Probe(broken, late="too slow").answer()) == "too slow"
