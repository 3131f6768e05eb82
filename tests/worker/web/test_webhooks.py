"""`POST /webhooks/{source}` as a sender meets it: statuses, bodies, secrets, and brokers that are down."""

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from celery import Celery
from pydantic import SecretStr

from foundation.database import Database, utc_now
from foundation.queue import Role
from models import Connection, InboundEvent, State, Tenant, Work
from tests.support.events import CANARY, encoded, signed, stripe
from tests.support.rows import all_of
from tests.support.serving import serving as real_server
from tests.support.web import TestClient
from worker.app import TASKS, configure
from worker.settings import Settings
from worker.web import create_app


def event(kind: str = "tenant.created", *connections: dict[str, Any], **data: Any) -> bytes:
    body = {"external_id": "org_1", **data}
    if connections:
        body["connections"] = list(connections)
    return encoded({"type": kind, "timestamp": utc_now().isoformat(), "data": body})


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings, configure(settings, Role.PUBLISHER))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def web(settings: Settings) -> Iterator[TestClient]:
    with serving(settings) as client:
        yield client


@pytest.fixture
def stored(database: Database) -> Database:
    return database


def post(web: TestClient, body: bytes, source: str = "app", **headers: str) -> Any:
    return web.post(f"/webhooks/{source}", content=body, headers=signed(body) | headers)


def test_signed_event_is_accepted(web: TestClient, stored: Database) -> None:
    """202, with the event's id, the tenant's state, its connections, and where to look."""
    answer = post(web, event("tenant.created", stripe()))

    assert answer.status_code == 202
    (row,), (inbound,) = all_of(stored, Connection), all_of(stored, InboundEvent)
    assert answer.json() == {
        "event_id": str(inbound.id),
        "tenant": "org_1",
        "state": "provisioning",
        "connections": [{"id": str(row.id), "provider": "stripe", "slot": "default", "state": "requested"}],
        "status_url": "/v1/tenants/org_1",
        "applied": True,
        "reason": None,
        "ignored": [],
    }


def test_repeated_message_gets_the_same_answer(web: TestClient, stored: Database) -> None:
    """The same message delivered again is answered the same, with one effect."""
    body = event("tenant.created", stripe())
    headers = signed(body, message_id="msg_1")

    answers = [web.post("/webhooks/app", content=body, headers=headers) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert len(all_of(stored, InboundEvent)) == 1


def test_deliveries_at_once_are_both_accepted(web: TestClient, stored: Database) -> None:
    """Two deliveries of one message at the same moment are both answered 202, with one effect."""
    body = event("tenant.created", stripe())
    headers = signed(body, message_id="msg_1")

    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: web.post("/webhooks/app", content=body, headers=headers), range(8))
        )

    assert {answer.status_code for answer in answers} == {202}
    assert [a.json() for a in answers] == [answers[0].json()] * 8
    assert len(all_of(stored, Tenant)) == len(all_of(stored, Connection)) == 1


def test_reused_id_is_refused(web: TestClient) -> None:
    """Another body under the same id is 422, and says why."""
    first, second = event(name="one"), event(name="two")
    web.post("/webhooks/app", content=first, headers=signed(first, message_id="msg_1"))

    answer = web.post("/webhooks/app", content=second, headers=signed(second, message_id="msg_1"))

    assert answer.status_code == 422
    (reason,) = answer.json()["validation_errors"]["webhook-id"]
    assert "another event, which was stored" in reason


def test_repetition_in_other_words_gets_the_same_answer(web: TestClient, stored: Database) -> None:
    """A sender that writes the same event anew, keys in another order and later, is answered as before."""
    body = {"external_id": "org_1", "connections": [stripe()]}
    spellings = [
        encoded({"type": "tenant.created", "timestamp": utc_now().isoformat(), "data": body}),
        encoded({"data": body, "timestamp": utc_now().isoformat(), "type": "tenant.created"}) + b" ",
    ]

    answers = [web.post("/webhooks/app", content=s, headers=signed(s, message_id="msg_1")) for s in spellings]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len(all_of(stored, InboundEvent)) == 1


def test_older_event_is_answered_as_such(web: TestClient) -> None:
    """An event of before what is known is 202, and the sender is told that it changed nothing, and why."""
    post(web, event(name="New"))
    older = encoded(
        {
            "type": "tenant.updated",
            "timestamp": (utc_now() - timedelta(minutes=10)).isoformat(),
            "data": {"external_id": "org_1", "name": "Old"},
        }
    )

    answer = post(web, older)

    assert answer.status_code == 202
    assert answer.json()["applied"] is False
    assert answer.json()["reason"] == "nothing in it is newer than what is known"


@pytest.mark.parametrize("message", [{"type": "user.created", "data": {"id": "u1"}}, {"type": "ping"}])
def test_unknown_type_is_acknowledged(web: TestClient, stored: Database, message: dict[str, Any]) -> None:
    """A type that is not ours is received, says so, and changes nothing."""
    with structlog.testing.capture_logs() as logs:
        answer = post(web, encoded(message))

    assert answer.status_code == 202
    assert answer.json()["applied"] is False
    assert f"unknown type {message['type']}; known are credential.provided" in answer.json()["reason"]
    assert all_of(stored, Tenant) == []
    assert [line["event"] for line in logs] == ["event.unknown"]


def test_unknown_field_is_named_in_the_answer(web: TestClient, stored: Database) -> None:
    """The event is applied without the field, and the sender can see a misspelling."""
    answer = post(web, event(nmae=CANARY, name="Choam"))

    assert answer.status_code == 202
    assert answer.json()["ignored"] == ["data.nmae"]
    assert CANARY not in answer.text
    assert [tenant.name for tenant in all_of(stored, Tenant)] == ["Choam"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_status_url_leads_to_the_tenant(settings: Settings, stored: Database) -> None:
    """Whatever id is accepted, a client that follows the answer's address finds the tenant."""
    ids = ["a/b", "a%2Fb", "?x", "#", "a\u202eb", "...", " ", "\U0001f6a2" * 255]
    app = create_app(settings, configure(settings, Role.PUBLISHER))

    with real_server(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        bodies = [event(external_id=each) for each in ids]
        sent = [client.post("/webhooks/app", content=body, headers=signed(body)) for body in bodies]
        operator = {"Authorization": "Bearer a-token-of-operators"}
        found = [client.get(answer.json()["status_url"], headers=operator) for answer in sent]

    assert [answer.json()["external_id"] for answer in found] == ids


GOOD = event("tenant.created", stripe())
REFUSED: dict[str, tuple[int, str, bytes, dict[str, str]]] = {
    "unsigned": (401, "app", GOOD, {"webhook-signature": ""}),
    "wrong signature": (401, "app", GOOD, {"webhook-signature": "v1,AAAA"}),
    "malformed signature": (401, "app", GOOD, {"webhook-signature": "A,B,C"}),
    "stale": (401, "app", GOOD, {"webhook-timestamp": "1"}),
    "unknown source": (404, "nobody", GOOD, {}),
    "unknown source with odd characters": (404, "%00%ff", GOOD, {}),
    "form": (415, "app", GOOD, {"content-type": "application/x-www-form-urlencoded"}),
    "text": (415, "app", GOOD, {"content-type": "text/plain"}),
    "no type": (415, "app", GOOD, {"content-type": ""}),
    "almost JSON": (415, "app", GOOD, {"content-type": "application/jsonp"}),
    "compressed": (415, "app", gzip.compress(GOOD), {"content-encoding": "gzip"}),
    "too large": (413, "app", b" " * (1024 * 1024 + 1), {}),
    "no JSON": (422, "app", b"signup!", {}),
    "empty": (422, "app", b"", {}),
    "deep": (422, "app", b"[" * 100_000, {}),
    "not UTF-8": (422, "app", GOOD + b"\xff", {}),
    "dots as an id": (422, "app", event(external_id=".."), {}),
    "wrong value": (422, "app", event(metadata=CANARY), {}),
    "key of another provider": (422, "app", event("tenant.created", stripe(provider="hubspot")), {}),
    "unknown plan": (422, "app", event(plan="gold"), {}),
}


@pytest.mark.parametrize(("status", "source", "body", "headers"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(
    web: TestClient, stored: Database, status: int, source: str, body: bytes, headers: dict[str, str]
) -> None:
    """Each kind of mistake has its status and one shape of body; nothing is stored, nothing is repeated."""
    answer = post(web, body, source, **headers)

    assert answer.status_code == status
    assert answer.json()["summary"]
    assert ("validation_errors" in answer.json()) is (status == 422)
    assert CANARY not in answer.text
    assert all_of(stored, Tenant) == []


def test_largest_body_is_read(web: TestClient) -> None:
    """A body of exactly the limit is not too large."""
    body = event(metadata={"pad": ""})
    body = body.replace(b'"pad": ""', b'"pad": "' + b"x" * (1024 * 1024 - len(body)) + b'"')

    assert post(web, body).status_code == 202


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_content_type_is_read_as_the_standard_says(web: TestClient, content_type: str) -> None:
    """Parameters and capitals do not matter."""
    assert post(web, event(), **{"content-type": content_type}).status_code == 202


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused(web: TestClient, method: str) -> None:
    """Only POST brings events; the refusal has the shape of all others."""
    answer = web.request(method, "/webhooks/app")

    assert answer.status_code == 405
    assert answer.json()["summary"]


def test_secrets_are_rotated_without_a_gap(settings: Settings) -> None:
    """While two secrets are set, messages signed with either are accepted."""
    other = "whsec_" + "QUFB" * 8
    settings.webhook_secrets["app"].append(SecretStr(other))
    body = event()

    with serving(settings) as web:
        old = web.post("/webhooks/app", content=body, headers=signed(body))
        new = web.post("/webhooks/app", content=body, headers=signed(body, secret=other))

    assert (old.status_code, new.status_code) == (202, 202)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_secret_is_nowhere_in_the_file(
    settings: Settings, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What reaches the disk and the logs holds the credential only sealed."""
    with serving(settings) as web:
        assert post(web, event("tenant.created", stripe())).status_code == 202
        assert post(web, event("tenant.created", stripe(status=CANARY))).status_code == 422
        path = Path(database_url.removeprefix("sqlite:///"))
        written = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))

    assert b"org_1" in written
    assert CANARY.encode() not in written
    assert CANARY not in capsys.readouterr().out


@contextmanager
def silent_broker() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.mark.parametrize("broker", ["refused", "silent"])
def test_broker_that_is_down_delays_nobody(settings: Settings, broker: str, stored: Database) -> None:
    """Without a broker the answer is 202 all the same, at once, and the rows wait for the sweep."""
    with silent_broker() as silent:
        if broker == "silent":
            settings = settings.model_copy(update={"broker_url": SecretStr(silent)})
        with serving(settings) as web:
            post(web, event("tenant.created", external_id="warm"))
            begun = time.monotonic()
            answers = [post(web, event("tenant.created", stripe(), external_id=f"org_{n}")) for n in range(5)]
            took = time.monotonic() - begun

    assert {answer.status_code for answer in answers} == {202}
    assert took / 5 < 0.25
    assert [row.state for row in all_of(stored, Connection)] == [State.REQUESTED] * 5
    assert [row.due_at is not None for row in all_of(stored, Work)] == [True] * 5


def test_openapi_names_every_refusal(web: TestClient) -> None:
    """The documentation of the intake lists the statuses that senders meet."""
    described = web.get("/openapi.json").json()["paths"]["/webhooks/{source}"]["post"]["responses"]

    assert {"202", "401", "404", "408", "413", "415", "422", "503"} <= set(described)


def test_openapi_describes_every_event(web: TestClient) -> None:
    """The body is the union of the events, and every part that the document refers to is in it."""
    document = web.get("/openapi.json").json()
    described = document["paths"]["/webhooks/{source}"]["post"]
    body = described["requestBody"]["content"]["application/json"]["schema"]

    named = {each["$ref"].rpartition("/")[2] for each in body["anyOf"]}
    assert named == {"TenantCreated", "TenantUpdated", "CredentialProvided", "TenantDeleted"}
    for reference in set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))):
        assert reference in document["components"]["schemas"]
    assert [each["name"] for each in described["parameters"]][:2] == ["source", "webhook-id"]


def test_app_is_not_shared_between_tests(settings: Settings) -> None:
    """Configuring for a publisher leaves a Celery app that knows its queues."""
    celery = configure(settings, Role.PUBLISHER)

    assert isinstance(celery, Celery)
    assert {queue.name for queue in celery.conf.task_queues} == set(TASKS)
