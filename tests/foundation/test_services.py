"""Both services, as processes: their servers have bounds, answer in their own shape, and end when told to."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.schema import MIGRATIONS as ENGINES_MIGRATIONS
from foundation.database import Database
from foundation.migrations import upgrade
from foundation.vault import generate_key
from models import MIGRATIONS
from tests.support.serving import eventually, exchange

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REFUSED = "redis://127.0.0.1:1/0"
COMMANDS = {
    "worker": ["-c", "from worker.cli import main; main()"],
    "engine": ["-m", "engine"],
}


def environment(service: str, folder: Path) -> dict[str, str]:
    """Settings for one service on a database of its own."""
    prefix = "GANGWAY_ENGINE_" if service == "engine" else "GANGWAY_"
    token = "a-token-of-operators"
    own = {
        "DATABASE_URL": f"sqlite:///{folder / 'service.db'}",
        "BROKER_URL": REFUSED,
        "VAULT_KEYS": generate_key(),
        "API_URL": "http://127.0.0.1:1",
        "API_TOKEN": token,
        "OPERATOR_TOKEN": token,
        "WEBHOOK_SECRETS": json.dumps({"app": [SECRET]}),
    }
    return os.environ | {prefix + name: value for name, value in own.items()}


@pytest.fixture(params=COMMANDS)
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A web process that answers, and its port."""
    command = [sys.executable, *COMMANDS[request.param]]
    env = environment(request.param, tmp_path)
    database = Database(f"sqlite:///{tmp_path / 'service.db'}")
    upgrade(database, ENGINES_MIGRATIONS if request.param == "engine" else MIGRATIONS)
    database.dispose()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    web = subprocess.Popen([*command, "web", "--port", str(port)], env=env, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(port))
        yield port, web
    finally:
        web.kill()
        web.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_service_is_bounded_and_ends(process: tuple[int, "subprocess.Popen[bytes]"]) -> None:
    """A head and an announced body beyond the limits are refused; half a request delays no ending."""
    port, web = process
    announced = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"

    assert b" 431 " in exchange(port, b"GET / HTTP/1.1\r\nX: ", b"a" * 600_000)
    assert b" 413 " in exchange(port, announced)
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"GET / HTTP/1.1\r\n")
        web.send_signal(signal.SIGTERM)

        assert web.wait(20) in (0, -signal.SIGTERM)
