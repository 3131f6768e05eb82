"""When nothing can be stored: 503 with Retry-After, and never a word of the error."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy.exc import OperationalError

from foundation.database import utc_now
from foundation.queue import Role
from tests.support.events import CANARY, encoded, signed
from tests.support.serving import eventually
from tests.support.web import TestClient
from worker.app import configure
from worker.intake.inbox import Inbox, InboxFullError
from worker.settings import Settings
from worker.web import create_app

OPERATOR = {"Authorization": "Bearer a-token-of-operators"}


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings, configure(settings, Role.PUBLISHER))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def post(web: TestClient) -> Any:
    data = {"external_id": "org_1", "metadata": {"note": CANARY}}
    body = encoded({"type": "tenant.created", "timestamp": utc_now().isoformat(), "data": data})
    return web.post("/webhooks/app", content=body, headers=signed(body))


def assert_put_off(answer: Any) -> None:
    assert answer.status_code == 503
    assert list(answer.json()) == ["summary"]
    assert int(answer.headers["Retry-After"]) > 0


def failing(error: Exception) -> Any:
    def accept(_inbox: Inbox, _message: object) -> "Future[Any]":
        answer: Future[Any] = Future()
        answer.set_exception(error)
        return answer

    return accept


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
class TestInbox:
    """What the inbox may meet, and what the sender hears of it."""

    def test_database_that_fails(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """A database that is locked, full or away puts the sender off."""
        error = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        monkeypatch.setattr(Inbox, "accept", failing(error))

        with structlog.testing.capture_logs() as logs, serving(settings) as web:
            assert_put_off(post(web))
            assert web.get("/readyz").status_code == 503
            assert web.get("/readyz").json()["database"] == "not writable"

        assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["request.put_off"]

    def test_full(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full inbox puts the sender off at once."""

        def accept(_inbox: Inbox, _message: object) -> None:
            raise InboxFullError

        monkeypatch.setattr(Inbox, "accept", accept)

        with serving(settings) as web:
            assert_put_off(post(web))

    def test_answer_that_never_comes(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message that is not stored within the deadline is put off, and no longer waited for."""
        waiting: Future[Any] = Future()
        monkeypatch.setattr(Inbox, "accept", lambda _inbox, _message: waiting)

        with serving(settings.model_copy(update={"intake_deadline_s": 0.05})) as web:
            assert_put_off(post(web))

        assert waiting.cancelled()

    def test_unforeseen_error(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A mistake of ours is 500 in the same shape; neither answer nor log repeats what it says."""
        monkeypatch.setattr(Inbox, "accept", failing(ValueError(f"cannot read {CANARY}")))

        with structlog.testing.capture_logs() as logs, serving(settings) as web:
            answer = post(web)

        assert answer.status_code == 500
        assert list(answer.json()) == ["summary"]
        assert [line["error"] for line in logs if line["event"] == "request.broken"] == ["ValueError"]
        assert CANARY not in f"{logs}{answer.text}{capsys.readouterr()}"

    def test_bound(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """While nothing is stored, messages wait up to a bound."""
        monkeypatch.setattr("worker.intake.inbox.MOST_WAITING", 0)

        with serving(settings) as web:
            assert_put_off(post(web))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_database_without_tables_reads_as_unavailable(settings: Settings, database_url: str) -> None:
    """A read that the database refuses is put off too, in the same shape."""
    path = Path(database_url.removeprefix("sqlite:///"))
    with serving(settings) as web:
        assert web.get("/v1/tenants", headers=OPERATOR).status_code == 200
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE tenant RENAME TO elsewhere")
        connection.close()

        assert_put_off(web.get("/v1/tenants", headers=OPERATOR))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_locked_database_puts_off(settings: Settings, database_url: str) -> None:
    """While somebody else holds the write lock, senders are put off within the deadline; then all is well."""
    path = Path(database_url.removeprefix("sqlite:///"))
    with serving(settings.model_copy(update={"intake_deadline_s": 0.5})) as web:
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")

        assert_put_off(post(web))

        locker.execute("ROLLBACK")
        locker.close()

        eventually(lambda: post(web).status_code == 202)
        assert web.get("/readyz").status_code == 200
