"""What the queue's monitor shows of the engine's tasks: summaries without secrets, and no sweeps."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from celery import Celery
from celery.worker.request import Request
from kombu.message import Message

from engine.app import create_celery
from engine.backfill.pace import _keys
from engine.backfill.reader import Reader
from engine.backfill.report import Report
from engine.health import TroubleCode
from engine.hints import INSPECT, PURGE, QUEUES, READ, ROUTES, SWEEP
from foundation.database import new_id
from worker.app import TASKS

NOWHERE = "redis://127.0.0.1:1/0"


class Eventer:
    """Notes what a worker would tell the monitor."""

    enabled = True

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, kind: str, **_: object) -> None:
        self.sent.append(kind)


@pytest.fixture
def app(reader: Reader) -> Celery:
    return create_celery(NOWHERE, reader)


@pytest.fixture
def due(api: httpx.Client, hints: Any, sync_body: dict[str, Any]) -> UUID:
    """A reading of customers."""
    body = sync_body | {"collection_ids": ["stripe:customer"], "rate_limit": None}
    assert api.post("/v1/syncs", json=body).status_code == 200
    reading: UUID = hints.of(READ)[-1]
    return reading


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "1 page, 0 records of stripe:customer"),
        (1, "1 page, 1 record of stripe:customer"),
        (250, "3 pages, 250 records of stripe:customer"),
    ],
)
def test_a_reading_tells_what_it_read(app: Celery, due: UUID, upstream: Any, count: int, told: str) -> None:
    """The task's result says how much of what."""
    upstream.fill("/v1/customers", count)

    assert app.tasks[READ].apply(args=[[str(due)]]).result == told
    assert app.tasks[READ].apply(args=[[str(due)]]).result == "nothing to read"


def test_a_refusal_is_told_without_secrets(app: Celery, due: UUID, upstream: Any) -> None:
    """The code of the trouble, and nothing that the provider said."""
    upstream.interfere = lambda _request: httpx.Response(401, text="sk_live_7eC39HqLyjWDarjtT1zdp7dc")

    assert app.tasks[READ].apply(args=[[str(due)]]).result == "stripe:customer failed: credential_rejected"


def test_a_look_at_a_credential_tells_what_it_learned(
    app: Celery, api: httpx.Client, due: UUID, upstream: Any
) -> None:
    """The number of schemas."""
    upstream.fill("/v1/customers", 1)
    credential_id = api.get("/v1/credentials").json()["data"][0]["id"]
    assert app.tasks[INSPECT].apply(args=[[credential_id]]).result == "nobody has asked"

    assert api.post(f"/v1/collections/{credential_id}/refresh/start").status_code == 200
    told = app.tasks[INSPECT].apply(args=[[credential_id]]).result

    assert told == "stripe: 1 collection with a schema"


def test_a_report_of_many() -> None:
    """Several collections are counted; events and failures have their words."""
    report = Report()
    report.note_page("stripe:customer", 2)
    report.note_page("stripe:invoice", 3)
    report.note_failure("*", TroubleCode.RATE_LIMITED)

    assert str(report) == "2 pages, 5 records of 2 collections; events failed: rate_limited"


@pytest.mark.parametrize(("task", "is_told"), [(READ, True), (INSPECT, True), (SWEEP, False), (PURGE, False)])
def test_periodic_tasks_send_no_events(app: Celery, task: str, is_told: bool) -> None:
    """They would fill the monitor's history within hours."""
    eventer = Eventer()
    headers = {"id": str(new_id()), "task": task, "argsrepr": "", "kwargsrepr": ""}
    kind = {"content_type": "application/json", "content_encoding": "utf-8"}
    message = Message(body="[[], {}, {}]", headers=headers, **kind)

    Request(message, app=app, eventer=eventer, task=app.tasks[task]).send_event("task-started")

    assert bool(eventer.sent) is is_told


def test_both_services_may_share_one_redis() -> None:
    """Flower sees one database of Redis, so nothing there may have the same name."""
    assert set(QUEUES).isdisjoint(TASKS)
    assert set(ROUTES).isdisjoint(TASKS)
    assert all(each.startswith("engine.") for each in QUEUES)
    assert all(each.startswith("engine:") for each in _keys(new_id()))
