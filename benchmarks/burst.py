"""How fast does a burst of signups become ready tenants, at what cost?

    .venv/bin/python benchmarks/burst.py [--signups 1000] [--json]

Starts the worker's whole stack (Redis, web, two workers, beat, Flower) in a temporary directory beside an
independent Management API server that answers after 20 ms and whose backfills take 2 to 6 s, sends signed
signups as fast as they are answered, and prints what an operator would ask: how long an answer takes, how
long a tenant waits beyond its own backfill, how often it was polled, and the CPU each process used.
Everything runs on loopback and ends with the command.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from sqlmodel import select

from foundation.database import Database
from models import Connection
from worker.cli.sending import signed_headers
from worker.demo.signups import Signup
from worker.stack import Scope, Stack, free_port, running
from worker.supervisor import HOST, HttpOk, ProcessSpec

API = Path(__file__).parent.parent / "tests" / "peers" / "contract_api.py"
TOKEN = "benchmark-token-of-no-worth"  # noqa: S105  # of a server that lives as long as this command
AT_ONCE = 32
GIVE_UP_AFTER_S = 300.0


@dataclass(frozen=True)
class Figures:
    """What one run showed; seconds unless the name says otherwise."""

    signups: int
    ready: int
    total_s: float
    sending_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    wait_p50_s: float
    wait_p95_s: float
    wait_max_s: float
    polls_per_tenant: float
    api_requests_per_tenant: float
    syncs_per_connection_max: int
    cpu_ms_per_tenant: dict[str, float]


async def measure(count: int, api_options: Sequence[str]) -> Figures:
    """One burst, from an empty database to the last tenant that becomes ready."""
    port = free_port()
    api_url = f"http://{HOST}:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GANGWAY_")}
    environment |= {"GANGWAY_API_URL": api_url, "GANGWAY_API_TOKEN": TOKEN}
    argv = (sys.executable, str(API), "--port", str(port), "--token", TOKEN, *api_options)
    api = ProcessSpec("api", argv, dict(os.environ), ready=HttpOk(port, "/_double/stats"))
    scope = Scope(worker=True, engine=False, redis=True)
    with tempfile.TemporaryDirectory(prefix="gangway-burst-") as home:
        async with running(
            Path(home), scope, environment, automatic=True, report=_note, beside=[api]
        ) as stack:
            await stack.supervisor.all_ready()
            return await _burst(stack, api_url, count)


async def _burst(stack: Stack, api_url: str, count: int) -> Figures:
    before = _cpu_seconds(stack)
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as client:
        began = time.monotonic()
        acks = await _send(client, stack, count)
        sending_s = time.monotonic() - began
        database = Database(stack.config.value_of("GANGWAY_DATABASE_URL"))
        connections = await _wait_until_settled(database, count)
        total_s = time.monotonic() - began
        used = {name: cpu - before[name] for name, cpu in _cpu_seconds(stack).items()}
        stats = (await client.get(f"{api_url}/_double/stats?group_by=gangway_connection_id")).json()
    database.dispose()
    waits = sorted(_waits(connections, stats["backfills"]))
    acks.sort()
    return Figures(
        signups=count,
        ready=len(waits),
        total_s=total_s,
        sending_s=sending_s,
        ack_p50_ms=1000 * _quantile(acks, 0.50),
        ack_p99_ms=1000 * _quantile(acks, 0.99),
        wait_p50_s=_quantile(waits, 0.50),
        wait_p95_s=_quantile(waits, 0.95),
        wait_max_s=waits[-1],
        polls_per_tenant=statistics.mean(c.polls for c in connections),
        api_requests_per_tenant=sum(stats["requests"].values()) / count,
        syncs_per_connection_max=max(stats["max_syncs_by"].values()),
        cpu_ms_per_tenant={name: 1000 * seconds / count for name, seconds in used.items()},
    )


async def _send(client: httpx.AsyncClient, stack: Stack, count: int) -> list[float]:
    """Post every signup, as many at a time as there are connections; returns the seconds each took."""
    url = f"{stack.config.url_of('web')}/webhooks/app"
    secret = json.loads(stack.config.value_of("GANGWAY_WEBHOOK_SECRETS"))["app"][0]
    numbers = iter(range(count))
    acks: list[float] = []

    async def sender() -> None:
        for number in numbers:
            signup = Signup(f"org_{number}", f"Customer {number}", f"sk_test_benchmark{number:08}")
            body = signup.event(datetime.now(UTC))
            headers = signed_headers(body, secret, f"msg_{number}")
            began = time.perf_counter()
            answer = await client.post(url, content=body, headers=headers)
            acks.append(time.perf_counter() - began)
            answer.raise_for_status()

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return acks


async def _wait_until_settled(database: Database, count: int) -> list[Connection]:
    give_up_at = time.monotonic() + GIVE_UP_AFTER_S
    while True:
        with database.read() as session:
            connections = list(session.exec(select(Connection)))
        if sum(c.ready_at is not None for c in connections) == count or time.monotonic() > give_up_at:
            return connections
        await asyncio.sleep(0.5)


def _waits(connections: Sequence[Connection], backfills: Sequence[dict[str, float]]) -> list[float]:
    """Seconds from signup to ready, less what the tenant's own backfill took at the API."""
    own = {str(b["sync_id"]): b["completed_at"] - b["created_at"] for b in backfills}
    return [
        (c.ready_at - c.created_at).total_seconds() - own[str(c.remote_sync_id)]
        for c in connections
        if c.ready_at is not None
    ]


def _cpu_seconds(stack: Stack) -> dict[str, float]:
    """User and system time of each process so far, from /proc."""
    ticks = os.sysconf("SC_CLK_TCK")
    names = ("redis", "web", "worker-onboarding", "worker-polling", "beat", "flower", "api")
    pids = {name: stack.supervisor.pid_of(name) for name in names}
    seconds = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds[name] = (int(fields[11]) + int(fields[12])) / ticks
    return seconds


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, round(len(ordered) * share) - 1)]


def _note(line: str) -> None:
    print(line, file=sys.stderr)


def _table(figures: Figures) -> str:
    rows = [
        f"{name:<26} {value:>10.2f}" for name, value in vars(figures).items() if not isinstance(value, dict)
    ]
    total = sum(cpu for name, cpu in figures.cpu_ms_per_tenant.items() if name != "api")
    rows += [f"  CPU ms/tenant {name:<10} {cpu:>10.2f}" for name, cpu in figures.cpu_ms_per_tenant.items()]
    return "\n".join([*rows, f"  CPU ms/tenant, without api {total:>8.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--signups", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    options = ("--latency-ms", "20", "--backfill-min-s", "2", "--backfill-max-s", "6", "--seed", "1")
    figures = asyncio.run(measure(arguments.signups, options))
    if arguments.json:
        print(json.dumps(vars(figures)))
        return
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    print(_table(figures))


if __name__ == "__main__":
    main()
