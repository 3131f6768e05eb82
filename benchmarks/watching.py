"""What does it cost to watch a hundred thousand connections that are ready, and how soon is trouble seen?

    .venv/bin/python -m benchmarks.watching [--connections 100000] [--minutes 5] [--bad 20] [--json]

Fills the worker's database with `ready` connections and an independent Management API server, which tells
what changed, with their syncs. Starts the worker's whole stack (Redis, web, workers, beat, Flower), lets it
settle, and measures for some minutes: the CPU of each process as a share of a core, the requests that reach
the API, and the memory of each process against that of an empty stack. Then some syncs, drawn at random, turn
bad one after the other, and it is measured how soon the rows say so. Everything runs on loopback and ends
with the command, which fails if a bad sync is not seen in time.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID

import aiohttp
from sqlmodel import select

from benchmarks.sides import Api, Running, gangway, management_api, note
from benchmarks.usage import cpu_seconds, memory_mib, until_quiet, used_between
from benchmarks.watched import Watched, fill_database, fill_server
from foundation.database import Database
from models import Connection, State
from tests.support.databases import KINDS, empty_database

LOOK_EVERY_S: Final = 0.1
SAMPLE_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class Figures:
    """What one run showed."""

    connections: int
    minutes: float
    settled_s: float | None
    """From the start of the stack until it was quiet; none if it was not within the time given."""
    cores: float
    """CPU of all processes but the Management API, as a share of one core."""
    cores_by_process: dict[str, float]
    requests: dict[str, int]
    requests_per_thousand_and_pace: float
    """For each 1,000 connections in 300 s, the pace at which a ready one is looked at by default."""
    memory_mib: dict[str, float]
    """At the largest while it was measured."""
    memory_mib_empty: dict[str, float]
    seen_p50_s: float
    seen_max_s: float
    not_seen: int


def measure(options: argparse.Namespace) -> Figures:
    """Measure an empty stack's memory, then everything on a full one."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gangway-watching-")))
        empty = stack.enter_context(empty_database(options.database, home))
        full = stack.enter_context(empty_database(options.database, home))
        memory_empty = asyncio.run(_measure_empty(options, home, empty))
        return asyncio.run(_measure_full(options, home, full, memory_empty))


async def _measure_empty(options: argparse.Namespace, home: Path, database_url: str) -> dict[str, float]:
    note("an empty stack")
    async with (
        management_api(home, api_options(options)) as api,
        gangway(home / "empty", api.url, database_url) as stack,
    ):
        await until_quiet(stack.pids)
        return await _largest_memory(stack, options.empty_s)


async def _measure_full(
    options: argparse.Namespace, home: Path, database_url: str, memory_empty: dict[str, float]
) -> Figures:
    async with management_api(home, api_options(options)) as api, session_of(api) as http:
        note(f"filling with {options.connections:,} connections")
        watched = await fill_server(http, options.connections)
        fill_database(database_url, watched)
        note("starting")
        began = time.monotonic()
        async with gangway(home / "full", api.url, database_url) as stack:
            settled_s = await _settle(stack, options, began)
            steady = await _steady(stack, http, options)
            seen = await _turn_bad(http, database_url, watched, options)
    return _figures(options, settled_s, steady, memory_empty, seen)


def api_options(options: argparse.Namespace) -> tuple[str, ...]:
    latency = ("--latency-ms", str(options.latency_ms), "--seed", str(options.seed))
    return (*latency, *(() if options.without_feed else ("--changes-feed",)))


@asynccontextmanager
async def session_of(api: Api) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the server's operator's view."""
    async with aiohttp.ClientSession(base_url=api.url, raise_for_status=True) as session:
        yield session


async def _settle(stack: Running, options: argparse.Namespace, began: float) -> float | None:
    """Wait for the first listing to end."""
    try:
        await until_quiet(stack.pids, give_up_after_s=options.settle_s, quiet_for_s=5.0)
    except TimeoutError:
        note(f"not quiet after {options.settle_s:g} s, measuring all the same")
        return None
    return time.monotonic() - began


@dataclass(frozen=True)
class Steady:
    """What was used while nothing happened."""

    took_s: float
    cpu_s: dict[str, float]
    requests: dict[str, int]
    memory_mib: dict[str, float]


async def _steady(stack: Running, http: aiohttp.ClientSession, options: argparse.Namespace) -> Steady:
    note(f"measuring for {options.minutes:g} min")
    cpu, requests, began = cpu_seconds(stack.pids), await _requests(http), time.monotonic()
    memory = await _largest_memory(stack, 60 * options.minutes)
    after = await _requests(http)
    asked = {route: n - requests.get(route, 0) for route, n in after.items() if n > requests.get(route, 0)}
    return Steady(time.monotonic() - began, used_between(cpu, cpu_seconds(stack.pids)), asked, memory)


async def _largest_memory(stack: Running, during_s: float) -> dict[str, float]:
    largest: dict[str, float] = {}
    ends_at = time.monotonic() + during_s
    while (left := ends_at - time.monotonic()) > 0:
        await asyncio.sleep(min(left, SAMPLE_EVERY_S))
        now = memory_mib(stack.pids)
        largest = {name: max(mib, largest.get(name, 0.0)) for name, mib in now.items()}
    return largest


async def _requests(http: aiohttp.ClientSession) -> dict[str, int]:
    async with http.get("/_double/stats?backfills=0") as answer:
        requests: dict[str, int] = (await answer.json())["requests"]
        return requests


async def _turn_bad(
    http: aiohttp.ClientSession, database_url: str, watched: Sequence[Watched], options: argparse.Namespace
) -> list[float | None]:
    """Turn syncs bad, one after the other at uneven intervals; for each the seconds until its row told."""
    note(f"turning {options.bad} syncs bad")
    dice = random.Random(options.seed)
    database = Database(database_url)
    waiting = []
    for each in dice.sample(watched, min(options.bad, len(watched))):
        await asyncio.sleep(dice.uniform(0.0, 2.0))
        await http.post("/_double/health", json={"sync_id": each.sync_id, "status": "error"})
        waiting.append(asyncio.create_task(_seen(database, each.connection_id, options.see_within_s)))
    seen = await asyncio.gather(*waiting)
    database.dispose()
    return seen


async def _seen(database: Database, connection_id: UUID, within_s: float) -> float | None:
    began = time.monotonic()
    wanted = select(Connection.state, Connection.error_code).where(Connection.id == connection_id)
    while (took_s := time.monotonic() - began) < within_s:
        with database.read() as session:
            state, error_code = session.exec(wanted).one()
        if state is not State.READY or error_code is not None:
            return took_s
        await asyncio.sleep(LOOK_EVERY_S)
    return None


def _figures(
    options: argparse.Namespace,
    settled_s: float | None,
    steady: Steady,
    memory_empty: dict[str, float],
    seen: Sequence[float | None],
) -> Figures:
    shares = {name: cpu_s / steady.took_s for name, cpu_s in steady.cpu_s.items()}
    paces = steady.took_s / 300
    times = [took_s for took_s in seen if took_s is not None]
    return Figures(
        connections=options.connections,
        minutes=steady.took_s / 60,
        settled_s=settled_s,
        cores=sum(shares.values()),
        cores_by_process=shares,
        requests=steady.requests,
        requests_per_thousand_and_pace=sum(steady.requests.values()) / (options.connections / 1000) / paces,
        memory_mib=steady.memory_mib,
        memory_mib_empty=memory_empty,
        seen_p50_s=median(times) if times else float("nan"),
        seen_max_s=max(times, default=float("nan")),
        not_seen=len(seen) - len(times),
    )


def table_of(figures: Figures) -> str:
    plain = {name: value for name, value in asdict(figures).items() if not isinstance(value, dict)}
    lines = [f"{name:<32} {_cell(value)}" for name, value in plain.items()]
    lines += [f"  requests {route:<21} {_cell(number)}" for route, number in figures.requests.items()]
    lines.append(f"{'':<32} {'cores':>12} {'MiB':>12} {'MiB, empty':>12}")
    lines += [f"  {name:<30} {_process(figures, name)}" for name in figures.cores_by_process]
    return "\n".join(lines)


def _process(figures: Figures, name: str) -> str:
    memory = (_mib(figures.memory_mib, name), _mib(figures.memory_mib_empty, name))
    return f"{figures.cores_by_process[name]:>12.4f} {memory[0]:>12.1f} {memory[1]:>12.1f}"


def _mib(memory: Mapping[str, float], name: str) -> float:
    return memory.get(name, float("nan"))


def _cell(value: Any) -> str:
    return f"{'-':>12}" if value is None else f"{value:>12,.3f}"


def main() -> None:
    options = parser().parse_args()
    figures = measure(options)
    if not options.json:
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.database}")
        print(table_of(figures))
    print(json.dumps(asdict(figures)))
    if figures.not_seen:
        raise SystemExit(f"{figures.not_seen} bad syncs were not seen within {options.see_within_s:g} s")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    result.add_argument("--connections", type=int, default=100_000)
    result.add_argument("--minutes", type=float, default=5.0, help="how long to measure")
    result.add_argument("--bad", type=int, default=20, help="how many syncs turn bad in the end")
    result.add_argument("--see-within-s", type=float, default=60.0, help="when to give up on a bad sync")
    result.add_argument("--settle-s", type=float, default=180.0, help="how long the first listing may take")
    result.add_argument("--empty-s", type=float, default=30.0, help="how long to look at an empty stack")
    result.add_argument("--without-feed", action="store_true", help="the API does not tell what changed")
    result.add_argument("--latency-ms", type=float, default=20, help="how long the API takes to answer")
    result.add_argument("--database", choices=KINDS, default="sqlite")
    result.add_argument("--seed", type=int, default=1)
    result.add_argument("--json", action="store_true", help="the JSON object alone, without the table")
    return result


if __name__ == "__main__":
    main()
