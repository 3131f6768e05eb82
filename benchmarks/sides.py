"""Those who do the job: Gangway's whole stack and its rival, each beside a Management API of its own."""

import asyncio
import base64
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import create_engine, text

from benchmarks.usage import Pids, parent_of
from worker.stack import Scope, free_port, running
from worker.stack.redis import redis_server, write_redis_config
from worker.supervisor import HOST, HttpOk, ProcessSpec, Supervisor, TcpOpen

STORE: Final = "postgresql"
ROOT: Final = Path(__file__).parent.parent
SCRIPT: Final = ROOT / "tests" / "peers" / "contract_api.py"
TOKEN: Final = "benchmark-token-of-no-worth"  # noqa: S105  # of a server that lives as long as this command
OF_THIS_CHECKOUT: Final = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
"""So that the processes run the same code as the command, wherever the package is installed from."""
START_WITHIN_S: Final = 120.0
RIVAL_PROCESSES: Final = 2
RIVAL_THREADS: Final = 16


@dataclass(frozen=True)
class Api:
    """A Management API that listens."""

    url: str
    pids: Pids


@dataclass(frozen=True)
class Running:
    """A side at work."""

    webhook_url: str
    webhook_secret: str = field(repr=False)
    database_url: str = field(repr=False)
    pids: Pids


class Side(Protocol):
    """Starts everything in a directory, beside a Management API; all of it has ended after the block."""

    def __call__(
        self, home: Path, api_url: str, database_url: str
    ) -> AbstractAsyncContextManager[Running]: ...


@asynccontextmanager
async def management_api(home: Path, options: Sequence[str]) -> AsyncIterator[Api]:
    """The independent server of the contract."""
    port = free_port()
    argv = (sys.executable, str(SCRIPT), "--port", str(port), "--token", TOKEN, *options)
    ready = HttpOk(port, "/_double/stats?backfills=0")
    spec = ProcessSpec("api", argv, OF_THIS_CHECKOUT, ready=ready)
    async with Supervisor([spec], logs=home / "api", report=note) as supervisor:
        await _up(supervisor)
        yield Api(f"http://{HOST}:{port}", supervisor.pids())


@asynccontextmanager
async def gangway(home: Path, api_url: str, database_url: str) -> AsyncIterator[Running]:
    """Redis, web, workers, beat and Flower."""
    environment = {name: value for name, value in OF_THIS_CHECKOUT.items() if not name.startswith("GANGWAY_")}
    environment |= {"GANGWAY_API_URL": api_url, "GANGWAY_API_TOKEN": TOKEN}
    environment |= {"GANGWAY_DATABASE_URL": database_url}
    scope = Scope(worker=True, engine=False, redis=True)
    async with running(home, scope, environment, automatic=True, report=note) as stack:
        await _up(stack.supervisor)
        yield Running(
            webhook_url=f"{stack.config.url_of('web')}/webhooks/app",
            webhook_secret=json.loads(stack.config.value_of("GANGWAY_WEBHOOK_SECRETS"))["app"][0],
            database_url=database_url,
            pids=stack.supervisor.pids() | server_of(database_url),
        )


def dramatiq(home: Path, api_url: str, database_url: str) -> AbstractAsyncContextManager[Running]:
    """The rival as an afternoon leaves it, with dramatiq's defaults."""
    return _rival(home, api_url, database_url, {"RIVAL_TUNED": "no"})


def dramatiq_tuned(home: Path, api_url: str, database_url: str) -> AbstractAsyncContextManager[Running]:
    """The rival with everything that measuring has shown to make it faster."""
    return _rival(home, api_url, database_url, {"RIVAL_TUNED": "yes", "dramatiq_worker_timeout": "200"})


@asynccontextmanager
async def _rival(
    home: Path, api_url: str, database_url: str, tuning: Mapping[str, str]
) -> AsyncIterator[Running]:
    """Redis, web and one dramatiq worker of several processes: benchmarks/rival/."""
    redis_port, web_port = free_port(), free_port()
    password, secret = (
        secrets.token_urlsafe(32),
        f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
    )
    environment = {
        **OF_THIS_CHECKOUT,
        **tuning,
        "RIVAL_API_URL": api_url,
        "RIVAL_API_TOKEN": TOKEN,
        "RIVAL_BROKER_URL": f"redis://:{password}@{HOST}:{redis_port}/0",
        "RIVAL_DATABASE": database_url.removeprefix("sqlite:///"),
        "RIVAL_WEBHOOK_SECRET": secret,
    }
    config = write_redis_config(home, redis_port, password=password)
    redis = ProcessSpec("redis", (redis_server(), str(config)), environment, ready=TcpOpen(redis_port))
    specs = [redis, *_rival_processes(web_port, environment)]
    async with Supervisor(specs, logs=home / "logs", report=note) as supervisor:
        await _up(supervisor)
        yield Running(f"http://{HOST}:{web_port}/webhooks/app", secret, database_url, pids=supervisor.pids())


def _rival_processes(port: int, environment: Mapping[str, str]) -> list[ProcessSpec]:
    python = (sys.executable, "-m")
    web = ("uvicorn", "benchmarks.rival.web:app", "--host", HOST, "--port", str(port))
    quiet = ("--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools")
    size = ("--processes", str(RIVAL_PROCESSES), "--threads", str(RIVAL_THREADS))
    after = frozenset({"redis"})
    ready = HttpOk(port, "/healthz")
    work = (*python, "dramatiq", "benchmarks.rival.actors", *size)
    return [
        ProcessSpec("web", (*python, *web, *quiet), environment, after, ready),
        ProcessSpec("workers", work, environment, after | {"web"}),
    ]


SIDES: Final[Mapping[str, Side]] = {
    "gangway": gangway,
    "dramatiq": dramatiq,
    "dramatiq-tuned": dramatiq_tuned,
}


async def _up(supervisor: Supervisor) -> None:
    """Wait until every process is ready; raises when one does not come up."""
    try:
        async with asyncio.timeout(START_WITHIN_S):
            await supervisor.all_ready()
    except TimeoutError as exc:
        raise RuntimeError(f"not ready in time: {', '.join(supervisor.not_ready())}") from exc


def server_of(database_url: str) -> dict[str, int]:
    """The process that owns the database, if it is a server: its sessions are children of it."""
    if not database_url.startswith("postgresql"):
        return {}
    engine = create_engine(database_url)
    with engine.connect() as connection:
        pid = parent_of(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    engine.dispose()
    return {STORE: pid}


def note(line: str) -> None:
    print(line, file=sys.stderr)
