"""What is ours and under test: Gangway and the engine."""

import json
import os
import sys
import sysconfig
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import httpx
from standardwebhooks.webhooks import Webhook

from engine.schema import MIGRATIONS as ENGINES_MIGRATIONS
from foundation.database import Database
from foundation.migrations import upgrade
from foundation.vault import generate_key
from models import MIGRATIONS
from tests.e2e.harness import HOST, Machine, Process, Redis, free_port
from tests.e2e.peers import ContractApi

GANGWAY: Final = str(Path(sysconfig.get_path("scripts")) / "gangway")
LOOK_EVERY_S: Final = 0.2
FOLLOWED: Final = "--changes-feed"
"""The option of the independent API with which it tells what changed."""


class Engine:
    """Our Management API: a web process and a worker, reading the given Stripe if any."""

    def __init__(
        self,
        machine: Machine,
        *,
        database_url: str,
        broker_url: str,
        stripe_url: str = "",
        port: int | None = None,
        **settings: str,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.token = f"engine-{uuid4().hex}"
        self.env = {
            "GANGWAY_ENGINE_DATABASE_URL": database_url,
            "GANGWAY_ENGINE_BROKER_URL": broker_url,
            "GANGWAY_ENGINE_VAULT_KEYS": generate_key(),
            "GANGWAY_ENGINE_TOKENS": self.token,
            **({"GANGWAY_ENGINE_PROVIDERS__STRIPE__BASE_URL": stripe_url} if stripe_url else {}),
            **{f"GANGWAY_ENGINE_{name.upper()}": value for name, value in settings.items()},
        }
        self.http = machine.client(f"{self.url}/v1", self.token)
        engine = (sys.executable, "-m", "engine")
        self.machine = machine
        with_schema(database_url, ENGINES_MIGRATIONS)
        self.web = machine.add("engine-web", (*engine, "web", "--port", self.port), self.env)
        self.workers = [self.add_worker("engine-work")]

    def add_worker(self, name: str) -> Process:
        return self.machine.add(name, (sys.executable, "-m", "engine", "work"), self.env)

    def start(self) -> Self:
        """Start everything, and wait until it answers."""
        self.begin()
        self.machine.wait_for_port(self.port, "the engine")
        return self

    def begin(self) -> None:
        """Start everything, and let others start at the same time."""
        for process in (self.web, *self.workers):
            process.start()

    def read_anew(self, stream_id: str) -> list[dict[str, Any]]:
        """The records of a stream, as a new consumer gets them."""
        created = self.http.post("/http-consumers", json={"stream_id": stream_id}).raise_for_status()
        at = f"/http-consumers/{created.json()['id']}"
        records: list[dict[str, Any]] = []
        while batch := self.http.get(f"{at}/next", params={"batch_size": 1000}).json()["data"]:
            records += (message["record"] for message in batch)
            tokens = [message["ack_token"] for message in batch]
            self.http.post(f"{at}/ack", json={"ack_tokens": tokens}).raise_for_status()
        return records


class Gangway:
    """The worker's processes on one database and one broker, driving one Management API."""

    def __init__(
        self,
        machine: Machine,
        *,
        database_url: str,
        broker_url: str,
        api_url: str,
        api_token: str,
        **settings: str,
    ) -> None:
        self.machine = machine
        self.port = free_port()
        self.operator_token = f"operator-{uuid4().hex}"
        self._secret = f"whsec_{b64encode(os.urandom(24)).decode()}"
        self.env = {
            "GANGWAY_DATABASE_URL": database_url,
            "GANGWAY_BROKER_URL": broker_url,
            "GANGWAY_API_URL": api_url,
            "GANGWAY_API_TOKEN": api_token,
            "GANGWAY_WEBHOOK_SECRETS": json.dumps({"app": [self._secret]}),
            "GANGWAY_VAULT_KEYS": generate_key(),
            "GANGWAY_OPERATOR_TOKEN": self.operator_token,
            "GANGWAY_DATA_DIR": str(machine.home / "none"),
            **{f"GANGWAY_{name.upper()}": value for name, value in settings.items()},
        }
        self.http = machine.client(f"http://{HOST}:{self.port}", self.operator_token)
        with_schema(database_url, MIGRATIONS)
        self.web = self._add("web", "web", "--port", self.port)
        self.beat = self.add_beat("beat")

    def add_worker(self, name: str, queues: str = "onboarding,polling,maintenance") -> Process:
        return self._add(name, "work", "--queues", queues, "--name", name)

    def add_beat(self, name: str) -> Process:
        return self._add(name, "beat")

    def add_flower(self, port: int) -> Process:
        return self._add("flower", "flower", "--port", port)

    def _add(self, name: str, *command: object) -> Process:
        return self.machine.add(name, (GANGWAY, *command), self.env)

    def start_web(self) -> None:
        self.web.start()
        self.machine.wait_for_port(self.port, "the intake")

    def post(self, event: Mapping[str, object] | str, **headers: str) -> httpx.Response:
        """Send an event as a webhook, signed by the reference implementation of Standard Webhooks."""
        body = event if isinstance(event, str) else json.dumps(event)
        sent_at, id_ = datetime.now(UTC), f"msg_{uuid4().hex}"
        signed = {
            "content-type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": Webhook(self._secret).sign(id_, sent_at, body),
        }
        return self.http.post("/webhooks/app", content=body, headers=signed | headers)

    def sign_up(self, external_ids: Iterable[str], key: Callable[[str], str] | None = None) -> list[str]:
        """Sign these customers up and return the ids of their connections."""

        def send(external_id: str) -> str:
            secret = key(external_id) if key else f"sk_test_{uuid4().hex}"
            answer = self.post(signup(external_id, secret))
            assert answer.status_code == 202, answer.text
            return str(answer.json()["connections"][0]["id"])

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(send, external_ids))

    def tenants(self) -> dict[str, dict[str, Any]]:
        """All tenants by their external id, from the status API."""
        answer = self.http.get("/v1/tenants", params={"limit": 1000}).raise_for_status()
        return {tenant["external_id"]: tenant for tenant in answer.json()["data"]}

    def wait_until_done(self, external_ids: Iterable[str], state: str = "ready") -> float:
        """Wait until all of these have come to this state; returns how many seconds it took."""
        ids = list(external_ids)
        seen: dict[str, dict[str, Any]] = {}

        def are_done() -> bool:
            seen.update(self.tenants())
            return all(seen[id_]["state"] == state for id_ in ids)

        def moves() -> object:
            return [stands(tenant) for tenant in seen.values()]

        try:
            return self.machine.wait_until(
                are_done, f"all of {len(ids)} are {state}", moves=moves, every_s=LOOK_EVERY_S
            )
        except AssertionError as exc:
            left = [seen[id_] for id_ in ids if seen[id_]["state"] != state]
            raise AssertionError(f"{len(left)} are not {state}, the first: {left[:2]}\n{exc}") from None

    def readiness(self) -> dict[str, Any]:
        """What `/readyz` says."""
        return dict(self.http.get("/readyz").json())


def stands(tenant: Mapping[str, Any]) -> list[object]:
    """How far a tenant has come: what changes when there is progress, and not with every try."""
    return [[each["state"], each["health"], each["sync_id"]] for each in tenant["connections"]]


def with_schema(database_url: str, migrations: Path) -> None:
    """Bring a database's schema up to date, here: a process for it would take longer to start."""
    database = Database(database_url)
    upgrade(database, migrations)
    database.dispose()


def signup(external_id: str, key: str) -> dict[str, object]:
    """The event by which a customer of a Stripe-like provider signs up."""
    properties = {"kind": "stripe_key", "name": external_id, "secret": key, "test": True}
    connection = {"provider": "stripe", "credential": {"properties": properties}}
    data = {"external_id": external_id, "name": f"{external_id} Corp", "connections": [connection]}
    return {"type": "tenant.created", "timestamp": datetime.now(UTC).isoformat(), "data": data}


@dataclass(frozen=True)
class Stranger:
    """Gangway on a machine whose Management API is not ours."""

    machine: Machine
    redis: Redis
    api: ContractApi
    gangway: Gangway

    @classmethod
    def on(cls, machine: Machine, *api_options: str, database_url: str = "", **settings: str) -> Self:
        """Everything there, and nothing but the broker started. On SQLite unless told otherwise."""
        redis = Redis(machine).start()
        api = ContractApi(machine, *api_options)
        gangway = Gangway(
            machine,
            database_url=database_url or f"sqlite:///{machine.home}/gangway.db",
            broker_url=redis.url,
            api_url=api.url,
            api_token=api.TOKEN,
            **settings,
        )
        return cls(machine, redis, api, gangway)

    def start(self, *workers: Process) -> Self:
        """Start the API, the workers, a beat and the intake, all at the same time."""
        for process in (self.api.process, *workers, self.gangway.beat):
            process.start()
        self.gangway.start_web()
        self.machine.wait_for_port(self.api.port, "the contract API")
        return self

    def has_one_sync_each(self, connection_ids: Iterable[str]) -> bool:
        """Whether these connections, and all others, never had more or less than one sync at a time."""
        stats = self.api.stats()
        ever, now = stats["max_syncs_by"], stats["syncs_by"]
        return set(ever.values()) == set(now.values()) == {1} and set(connection_ids) <= set(now)
