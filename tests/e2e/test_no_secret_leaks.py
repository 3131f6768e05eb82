"""Secrets are in the signed request, sealed in the row, and in the call to the API: nowhere else.

Canaries go through a whole onboarding with everything recorded: what Redis is told, what Flower shows, what
the processes print at DEBUG, what lies in the database files, what errors quote.
"""

import base64
import json
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis

import worker.demo as demo
from engine.hints import PURGE as ENGINES_PURGE
from engine.hints import READ
from engine.hints import SWEEP as ENGINES_SWEEP
from tests.e2e.conftest import NewMachine
from tests.e2e.harness import HOST, Machine, Redis, free_port
from tests.e2e.peers import LocalStripe
from tests.e2e.services import Engine, Gangway
from worker.app import FOLLOW, PURGE, SWEEP

pytestmark = pytest.mark.e2e

GOOD = {f"org_{number}": f"sk_test_canary{uuid4().hex}" for number in range(3)}
WRONG = {"org_wrong": f"canary-without-a-known-form-{uuid4().hex}"}
WAITING = {"org_waiting": f"canary-that-waits-{uuid4().hex}"}
BROKER_PASSWORD = f"canary{uuid4().hex}"
CANARY = f"canary-in-the-wrong-place-{uuid4().hex}"
PROPERTIES = {"kind": "stripe_key", "secret": CANARY}
SPOILT_CREDENTIALS = {
    "one level too high": {"properties": PROPERTIES, "secret": CANARY},
    "without a kind": {"properties": {"secret": CANARY}},
    "of an impossible kind": {"properties": PROPERTIES | {"kind": [CANARY]}},
    "of an unknown kind": {"properties": PROPERTIES | {"kind": CANARY}},
    "as its properties": {"properties": CANARY},
    "as its metadata": {"properties": PROPERTIES, "metadata": CANARY},
    "in a list": {"properties": PROPERTIES, "oauth_app_id": [CANARY]},
    "all by itself": CANARY,
}


class Recording(threading.Thread):
    """Everything that Redis is told, as MONITOR shows it, until it is told that this is the end."""

    END = f"end-of-recording-{uuid4().hex}"

    def __init__(self, client: "redis.Redis") -> None:
        super().__init__(daemon=True)
        self.commands: list[str] = []
        self._client = client
        self._monitoring = threading.Event()
        self.start()
        assert self._monitoring.wait(10)

    def run(self) -> None:
        with self._client.monitor() as monitor:
            self._monitoring.set()
            while self.END not in (command := monitor.next_command()["command"]):
                self.commands.append(command)

    def end(self) -> None:
        self._client.echo(self.END)
        self.join(10)
        assert not self.is_alive()


@dataclass(frozen=True)
class Onboarded:
    """A service that has onboarded the canaries' customers, and what was recorded of it."""

    machine: Machine
    engine: Engine
    gangway: Gangway
    flower: httpx.Client
    told_to_redis: list[str]
    secrets: dict[str, str] = field(repr=False)

    def leaks(self, content: bytes) -> list[str]:
        """Which secrets are in there, as they are or in one of the usual encodings."""
        return [
            name for name, secret in self.secrets.items() if any(form in content for form in forms(secret))
        ]

    @property
    def database_files(self) -> list[Path]:
        return [path for path in self.machine.home.iterdir() if ".db" in path.name]

    def customers_with_sealed_secrets(self) -> set[str]:
        query = (
            "SELECT external_id FROM tenant JOIN connection ON tenant_id = tenant.id"
            " WHERE sealed_credential IS NOT NULL"
        )
        with closing(sqlite3.connect(self.machine.home / "gangway.db")) as database:
            return {external_id for (external_id,) in database.execute(query)}

    def leaks_in_databases(self) -> dict[str, list[str]]:
        found = {path.name: self.leaks(path.read_bytes()) for path in self.database_files}
        return {name: leaks for name, leaks in found.items() if leaks}


@pytest.fixture(scope="module")
def onboarded(new_machine: NewMachine) -> Onboarded:
    machine = new_machine()
    broker = Redis(machine, password=BROKER_PASSWORD).start()
    stripe = LocalStripe(machine, customers=10, subscribers=1)
    stripe.process.start()
    engine = Engine(
        machine,
        database_url=f"sqlite:///{machine.home}/engine.db",
        broker_url=broker.url,  # as in `gangway up`: Flower sees the tasks of both
        stripe_url=stripe.url,
        log_level="DEBUG",
    )
    gangway = Gangway(
        machine,
        database_url=f"sqlite:///{machine.home}/gangway.db",
        broker_url=broker.url,
        api_url=engine.url,
        api_token=engine.token,
        plans_file=str(Path(demo.__file__).with_name("plans.toml")),
        log_level="DEBUG",
        refusal_lasts_s="1",  # a wrong key is believed soon
    )
    with redis.Redis.from_url(broker.url, socket_timeout=None) as client:
        recording = Recording(client)
        flower_port = free_port()
        gangway.add_flower(flower_port).start()
        engine.begin()
        gangway.beat.start()
        gangway.add_worker("worker").start()
        gangway.start_web()
        for port, what in (
            (engine.port, "the engine"),
            (stripe.port, "localstripe"),
            (flower_port, "Flower"),
        ):
            machine.wait_for_port(port, what)
        flower = machine.client(f"http://{HOST}:{flower_port}")
        flower.auth = ("operator", gangway.operator_token)
        wait_for_workers(machine, flower)
        gangway.sign_up([*GOOD, *WRONG], key=(GOOD | WRONG).__getitem__)
        gangway.wait_until_done(GOOD)
        gangway.wait_until_done(WRONG, state="failed")
        recording.end()
    secrets = {
        **{f"credential of {id_}": secret for id_, secret in (GOOD | WRONG | WAITING).items()},
        "broker password": BROKER_PASSWORD,
        "API token": engine.token,
        "operator token": gangway.operator_token,
        "webhook secret": re.findall(r"whsec_([\w+/]+)", gangway.env["GANGWAY_WEBHOOK_SECRETS"])[0],
        "vault key": gangway.env["GANGWAY_VAULT_KEYS"].rpartition(":")[2].rstrip("="),
        "engine's vault key": engine.env["GANGWAY_ENGINE_VAULT_KEYS"].rpartition(":")[2].rstrip("="),
    }
    return Onboarded(machine, engine, gangway, flower, recording.commands, secrets)


def test_redis_is_told_no_secret(onboarded: Onboarded) -> None:
    """MONITOR saw the whole onboarding, and of the messages' bodies ids only."""
    told = "\n".join(onboarded.told_to_redis)
    bodies = [
        base64.b64decode(body)
        for command in onboarded.told_to_redis
        for body in re.findall(r'"body": "([\w+/=]+)"', command)
    ]

    assert {command.split()[1] for command in onboarded.told_to_redis if command.startswith("LPUSH")} >= {
        "credential.capture",
        "sync.follow",
    }
    assert any(b"callbacks" in body for body in bodies)
    assert onboarded.leaks(told.encode()) == []
    assert onboarded.leaks(b"\n".join(bodies)) == []


def test_flower_shows_the_steps_and_no_secret(onboarded: Onboarded) -> None:
    """Each step is listed with its state; neither API nor pages show a secret; strangers see nothing."""
    tasks = onboarded.flower.get("/api/tasks").raise_for_status().json()
    states = {(task["name"], task["state"]) for task in tasks.values()}
    some = [next(id_ for id_, task in tasks.items() if task["name"] == name) for name, _ in sorted(states)]
    workers = onboarded.flower.get("/api/workers", params={"refresh": "1"}).raise_for_status()
    paths = ["/", "/workers", "/tasks", "/broker", "/api/tasks", "/api/queues/length", "/metrics"]
    paths += [f"/task/{id_}" for id_ in some] + [f"/api/task/info/{id_}" for id_ in some]
    paths += [f"/worker/{name}" for name in workers.json()]

    pages = [onboarded.flower.get(path).raise_for_status().content for path in paths]

    assert {(name, "SUCCESS") for name in ("credential.capture", "sync.poll", READ)} <= states
    assert onboarded.leaks(b"\n".join([workers.content, *pages])) == []
    with httpx.Client(base_url=onboarded.flower.base_url, trust_env=False) as stranger:
        answers = {stranger.get(path).status_code for path in paths if path != "/metrics"}
    assert answers == {401}


def test_flower_tells_the_truth(onboarded: Onboarded) -> None:
    """A result is a summary, who failed for good is a failure by name, and the clock's tasks are left out."""
    shown: list[dict[str, Any]] = []

    def failures() -> list[str]:
        shown[:] = onboarded.flower.get("/api/tasks").raise_for_status().json().values()
        return [task["exception"] for task in shown if task["state"] == "FAILURE"]

    onboarded.machine.wait_until(lambda: len(failures()) >= len(WRONG), "Flower heard of the failures")

    results = [task["result"] for task in shown if task["name"] == "credential.capture"]
    assert any(re.search(r"\d captured, \d created", result) for result in results), results
    assert all(any(f"{name} stripe credential_rejected" in each for each in failures()) for name in WRONG)
    assert all("ConnectionsFailedError" in each for each in failures())
    assert {task["name"] for task in shown}.isdisjoint({SWEEP, PURGE, FOLLOW, ENGINES_SWEEP, ENGINES_PURGE})


def test_logs_hold_no_secret(onboarded: Onboarded) -> None:
    """Not even at DEBUG, not even where the provider refused the credential."""
    printed = {name: process.output.encode() for name, process in onboarded.machine.processes.items()}

    assert b"step.done" in printed["worker"]
    assert b"Traceback" not in printed["worker"]
    assert {name: found for name, output in printed.items() if (found := onboarded.leaks(output))} == {}


def test_databases_hold_no_secret(onboarded: Onboarded) -> None:
    """Not in the tables, not in what SQLite has not yet overwritten."""
    assert {path.name for path in onboarded.database_files} >= {"gangway.db", "engine.db"}
    assert onboarded.leaks_in_databases() == {}


def test_a_secret_that_waits_is_sealed(onboarded: Onboarded) -> None:
    """As long as nobody could capture it, it lies in the database sealed; then not even so."""
    worker = onboarded.machine.processes["worker"]
    worker.signal(signal.SIGSTOP)
    onboarded.gangway.sign_up(WAITING, key=WAITING.__getitem__)

    waiting, leaks = onboarded.customers_with_sealed_secrets(), onboarded.leaks_in_databases()
    worker.signal(signal.SIGCONT)
    onboarded.gangway.wait_until_done(WAITING, state="failed")

    assert waiting == set(WAITING)
    assert leaks == {}
    assert onboarded.customers_with_sealed_secrets() == set()


def test_leaks_would_be_found(onboarded: Onboarded) -> None:
    """The search finds each secret, also inside of base64 and hexadecimal."""
    for name, secret in onboarded.secrets.items():
        raw = f"x{secret}y".encode()
        shown = [raw, raw.hex().encode(), *(base64.b64encode(b" " * shift + raw) for shift in range(3))]
        assert all(name in onboarded.leaks(content) for content in shown)


@pytest.mark.parametrize("spoilt", SPOILT_CREDENTIALS.values(), ids=SPOILT_CREDENTIALS.keys())
def test_errors_quote_no_secret(onboarded: Onboarded, spoilt: object) -> None:
    """A credential that is refused is not quoted, whoever refuses it and for whatever reason."""
    connection = {"provider": "stripe", "credential": spoilt}
    event = json.dumps(
        {
            "type": "tenant.created",
            "timestamp": datetime.now(UTC).isoformat(),
            "data": {"external_id": "org_spoilt", "connections": [connection]},
        }
    )
    sync = connection | {"name": "n", "stream_id": str(uuid4()), "collection_ids": ["stripe:customer"]}
    gangway, engine = onboarded.gangway, onboarded.engine.http

    refusals = [
        gangway.post(event[:-1]),
        gangway.post(event + " " * 1024 * 1024),
        gangway.post(event, **{"webhook-signature": "v1,bm9uZQ=="}),
        gangway.post(event, **{"content-type": "text/plain"}),
    ]
    others = [
        gangway.post(event),
        engine.post("/credentials", json=spoilt),
        engine.post("/credentials", content=json.dumps(spoilt)[:-1]),
        engine.post("/syncs", json=sync),
    ]

    assert [answer.status_code for answer in refusals] == [422, 413, 401, 415]
    assert not any(answer.is_server_error for answer in others)
    answers = b"\n".join(answer.content for answer in [*refusals, *others])
    printed = b"\n".join(process.output.encode() for process in onboarded.machine.processes.values())
    assert CANARY.encode() not in answers + printed


def wait_for_workers(machine: Machine, flower: httpx.Client) -> None:
    """Flower hears of a task only when it knows the worker's events are on."""

    def knows() -> bool:
        answer = flower.get("/api/workers", params={"status": "true"})
        return answer.status_code == 200 and bool(answer.json())

    machine.wait_until(knows, "Flower sees the worker")


def forms(secret: str) -> Iterator[bytes]:
    """A secret as text, in hexadecimal, and in base64 at each of its three alignments."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        yield encoded[4 if shift else 0 : -4]
