"""The examples of the API's own documentation, sent with curl to our engine: token and ids are replaced."""

import json
import shutil
import subprocess
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.conftest import NewMachine
from tests.e2e.harness import Redis
from tests.e2e.services import Engine

pytestmark = pytest.mark.e2e

CREATE = {
    "provider": "stripe",
    "stream_id": "f0f70b52-5243-489c-879b-a1ae3f02abfd",
    "name": "Choam Corp - Stripe Production",
    "collection_ids": ["stripe:customer", "stripe:invoice"],
    "rate_limit": {"allowed_requests": 100, "interval": 60, "max_concurrent_requests": 0},
    "credential": {
        "properties": {
            "kind": "stripe_oauth2",
            "secret": "sk_live_7eC39HqLyjWDarjtT1zdp7dc",
            "test": True,
            "name": "Choam Corp - Stripe [Test]",
        },
        "oauth_app_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
        "metadata": {"custom_credential_property": 42},
    },
    "metadata": {"custom_property": 42},
    "external_id": "{YOUR_EXTERNAL_ID}",
}
UPDATE = {
    "name": "Choam Corp - Stripe Production",
    "collection_ids": ["stripe:customer", "stripe:invoice"],
    "status": "active",
    "rate_limit": {"allowed_requests": 100, "interval": 60, "max_concurrent_requests": 0},
    "metadata": {"custom_property": 42},
}
CREATE_CREDENTIAL = {
    "kind": "stripe_oauth2",
    "access_token": "sk_live_7eC39HqLyjWDarjtT1zdp7dc",
    "oauth_app_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
    "metadata": {"custom_property": 42},
}
CREATE_WITH_CREDENTIAL_ID = {
    "provider": "stripe",
    "name": "Choam Corp - Stripe Production",
    "collection_ids": ["stripe:customer", "stripe:invoice"],
    "rate_limit": {"allowed_requests": 100, "interval": 60, "max_concurrent_requests": 0},
    "credential_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
    "metadata": {"custom_property": 42},
}
MASKED = "***********"
JSON = {"content-type": "application/json"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def engine(new_machine: NewMachine) -> Engine:
    """Its API alone: nothing here needs records."""
    machine = new_machine()
    broker = Redis(machine).start()
    engine = Engine(machine, database_url=f"sqlite:///{machine.home}/engine.db", broker_url=broker.url)
    engine.web.start()
    machine.wait_for_port(engine.port, "the engine")
    return engine


@pytest.fixture(scope="module")
def stream_id(engine: Engine) -> str:
    """The stream that takes the place of the examples' one."""
    return str(curl(engine, "POST", "/v1/streams", {"slug": "main"})["id"])


def test_the_examples_work(engine: Engine, stream_id: str) -> None:
    """Create a sync with its credential; get, list, find and update it."""
    created = curl(engine, "POST", "/v1/syncs", CREATE | {"stream_id": stream_id, "external_id": "org_1"})
    got = curl(engine, "GET", f"/v1/syncs/{created['id']}")
    listed = curl(engine, "GET", "/v1/syncs")["data"]
    found = curl(engine, "GET", f"/v1/syncs?metadata={quote(json.dumps({'custom_property': 42}))}")["data"]
    missed = curl(engine, "GET", f"/v1/syncs?metadata={quote(json.dumps({'custom_property': 43}))}")["data"]
    updated = curl(engine, "PATCH", f"/v1/syncs/{created['id']}", UPDATE | {"name": "Choam Corp - Renamed"})

    given = {name: value for name, value in CREATE.items() if name not in {"stream_id", "credential"}}
    assert got == created
    assert created.items() >= (given | {"stream_id": stream_id, "external_id": "org_1"}).items()
    assert created["status"] == "active"
    assert created["health"] == {"status": "initializing", "sync_id": created["id"]}
    assert created["initial_backfill_completed_at"] is None
    assert created["credential"]["id"] == created["credential_id"]
    assert created["credential"]["properties"] == CREATE["credential"]["properties"] | {"secret": MASKED}
    assert created["credential"]["metadata"] == {"custom_credential_property": 42}
    assert [sync["id"] for sync in listed] == [sync["id"] for sync in found] == [created["id"]]
    assert missed == []
    assert updated.items() >= (UPDATE | {"name": "Choam Corp - Renamed"}).items()


def test_the_concept_page_works(engine: Engine, stream_id: str) -> None:
    """Add a credential, then a sync that names it; the page forgot the stream, which is required."""
    credential = curl(engine, "POST", "/v1/credentials", CREATE_CREDENTIAL)
    body = CREATE_WITH_CREDENTIAL_ID | {"credential_id": credential["id"], "stream_id": stream_id}

    created = curl(engine, "POST", "/v1/syncs", body)

    assert credential["kind"] == "stripe_oauth2"
    assert credential["properties"]["access_token"] == MASKED
    assert created["credential_id"] == credential["id"]


def test_a_consumer_reads_as_in_the_example(engine: Engine, stream_id: str) -> None:
    """`next` by GET with a batch size."""
    consumer = curl(engine, "POST", "/v1/http-consumers", {"stream_id": stream_id})

    assert curl(engine, "GET", f"/v1/http-consumers/{consumer['id']}/next?batch_size=10")["data"] == []


def curl(engine: Engine, method: str, path: str, body: Json | None = None) -> Json:
    """Send it with curl, as the examples do, where there is one; the answer must be a success."""
    data = json.dumps(body, indent=2) if body is not None else None
    if shutil.which("curl") is None:
        answer = engine.http.request(method, f"{engine.url}{path}", content=data, headers=JSON)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())
    command = ["curl", "--silent", "--fail-with-body", "--noproxy", "*", "--max-time", "30"]
    command += ["--request", method, "--url", f"{engine.url}{path}"]
    command += ["--header", f"Authorization: Bearer {engine.token}"]
    if data is not None:
        command += ["--header", "Content-Type: application/json", "--data", data]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return dict(json.loads(done.stdout))
