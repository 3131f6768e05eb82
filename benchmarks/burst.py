"""How fast does a burst of signups become ready tenants, at what cost, and how does that compare?

    .venv/bin/python -m benchmarks.burst [--signups 1000] [--versus dramatiq] [--rounds 3] [--json]

Starts the worker's whole stack (Redis, web, workers, beat, Flower) in a temporary directory beside an
independent Management API server that answers after 20 ms and whose backfills take 2 to 6 s, sends signed
signups over 64 connections as fast as they are answered, and prints what an operator would ask: how long
until all are ready, how long an answer takes, how long a customer waits beyond its own backfill, how many
requests reach the API, and the CPU each process used. With `--versus dramatiq` the worker of
benchmarks/rival/ does the same in turn, under the same load, beside the same server. Everything runs on
loopback and ends with the command, which fails if a customer is not ready in time or has two syncs.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
from sqlalchemy import DateTime, Engine, column, create_engine, func, select, table

from benchmarks.load import Sent, send, signups
from benchmarks.sides import SIDES, Api, Running, Side, management_api, note
from benchmarks.usage import cpu_seconds, machine_cpu_seconds, until_quiet, used_between
from tests.support.databases import KINDS, empty_database

OURS: Final = "gangway"
LOAD: Final = "load generator"
NOT_OURS: Final = ("api", LOAD)
LOOK_EVERY_S: Final = 0.2
CONNECTION: Final = table(
    "connection", column("created_at", DateTime), column("ready_at", DateTime), column("remote_sync_id")
)


@dataclass(frozen=True)
class Figures:
    """What one run showed; seconds unless the name says otherwise."""

    signups: int
    ready: int
    wall_s: float
    """From the first signup that is sent to the moment at which the last row says ready."""
    sending_s: float
    refused: int
    """Answers that asked the sender to come back later."""
    ack_p50_ms: float
    ack_p99_ms: float
    wait_p50_s: float
    """From the sending of a signup to its readiness, less what its own backfill took at the API."""
    wait_p95_s: float
    wait_max_s: float
    customers_with_two_syncs: int
    requests_per_customer: float
    cpu_ms_per_customer: float
    """Of all processes but the Management API and the load generator."""
    others_cores: float
    """What else ran on this machine meanwhile: CPU as a share of one core. Compare quiet rounds."""
    cpu_ms_by_process: dict[str, float]
    requests: dict[str, int]

    def is_right(self) -> bool:
        return self.ready == self.signups and self.customers_with_two_syncs == 0

    def numbers(self) -> dict[str, float]:
        """All figures by name, those of the processes and of the requests per customer included."""
        plain = {name: value for name, value in asdict(self).items() if isinstance(value, int | float)}
        cpu = {f"  CPU ms {name}": ms for name, ms in self.cpu_ms_by_process.items()}
        requests = {f"  requests {route}": n / self.signups for route, n in self.requests.items()}
        return plain | cpu | requests


def measure(side: Side, options: argparse.Namespace) -> Figures:
    """One burst, from an empty database to the last customer that becomes ready."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gangway-burst-")))
        database_url = stack.enter_context(empty_database(options.database, home))
        return asyncio.run(_measure(side, options, home, database_url))


async def _measure(side: Side, options: argparse.Namespace, home: Path, database_url: str) -> Figures:
    async with (
        management_api(home, api_options(options)) as api,
        side(home, api.url, database_url) as running,
    ):
        await until_quiet(running.pids)
        return await _burst(running, api, options)


def api_options(options: argparse.Namespace) -> tuple[str, ...]:
    """How the Management API behaves, the same for every side."""
    latency = ("--latency-ms", str(options.latency_ms), "--seed", str(options.seed))
    backfills = ("--backfill-min-s", "2", "--backfill-max-s", "6")
    return (*latency, *backfills, *(("--changes-feed",) if options.changes_feed else ()))


async def _burst(running: Running, api: Api, options: argparse.Namespace) -> Figures:
    pids = {**running.pids, **api.pids}
    messages = signups(options.signups, running.webhook_secret)
    database = create_engine(running.database_url)
    before, own_before, all_before = cpu_seconds(pids), time.process_time(), machine_cpu_seconds()
    began = time.monotonic()
    sent = await send(running.webhook_url, messages, options.connections)
    sending_s = time.monotonic() - began
    await _until_ready(database, options)
    wall_s = time.monotonic() - began
    used = used_between(before, cpu_seconds(pids)) | {LOAD: time.process_time() - own_before}
    others_s = machine_cpu_seconds() - all_before - sum(used.values())
    rows = _rows(database)
    database.dispose()
    return _figures(options, sent, rows, await _stats(api.url), used, wall_s, sending_s, others_s)


async def _until_ready(database: Engine, options: argparse.Namespace) -> None:
    ready = select(func.count()).select_from(CONNECTION).where(CONNECTION.c.ready_at.is_not(None))
    give_up_at = time.monotonic() + options.give_up_after_s
    while time.monotonic() < give_up_at:
        with database.connect() as connection:
            if connection.execute(ready).scalar_one() >= options.signups:
                return
        await asyncio.sleep(LOOK_EVERY_S)
    note(f"not everybody is ready after {options.give_up_after_s:g} s")


def _rows(database: Engine) -> dict[str, float]:
    """When each sync's connection became ready."""
    wanted = select(CONNECTION.c.remote_sync_id, CONNECTION.c.ready_at)
    with database.connect() as connection:
        rows = connection.execute(wanted.where(CONNECTION.c.ready_at.is_not(None))).all()
    return {str(sync_id): _epoch(ready_at) for sync_id, ready_at in rows}


def _epoch(instant: datetime) -> float:
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


async def _stats(api_url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{api_url}/_double/stats") as answer:
        stats: dict[str, Any] = await answer.json()
        return stats


def _figures(
    options: argparse.Namespace,
    sent: Sent,
    ready_at: Mapping[str, float],
    stats: Mapping[str, Any],
    used: Mapping[str, float],
    wall_s: float,
    sending_s: float,
    others_s: float,
) -> Figures:
    count = options.signups
    backfills = {backfill["sync_id"]: backfill for backfill in stats["backfills"]}
    waits = sorted(_wait(at, backfills[sync_id], sent) for sync_id, at in ready_at.items())
    syncs_of = Counter(backfill["external_id"] for backfill in stats["backfills"])
    acks = sorted(sent.ack_s)
    return Figures(
        signups=count,
        ready=len(ready_at),
        wall_s=wall_s,
        sending_s=sending_s,
        refused=sent.refused,
        ack_p50_ms=1000 * quantile(acks, 0.50),
        ack_p99_ms=1000 * quantile(acks, 0.99),
        wait_p50_s=quantile(waits, 0.50),
        wait_p95_s=quantile(waits, 0.95),
        wait_max_s=quantile(waits, 1.0),
        customers_with_two_syncs=sum(number > 1 for number in syncs_of.values()),
        requests_per_customer=sum(stats["requests"].values()) / count,
        cpu_ms_per_customer=1000 * sum(s for name, s in used.items() if name not in NOT_OURS) / count,
        others_cores=others_s / wall_s,
        cpu_ms_by_process={name: 1000 * seconds / count for name, seconds in used.items()},
        requests=stats["requests"],
    )


def _wait(ready_at: float, backfill: Mapping[str, Any], sent: Sent) -> float:
    own_s = backfill["completed_at"] - backfill["created_at"]
    return float(ready_at - sent.at[backfill["external_id"]] - own_s)


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, round(len(ordered) * share) - 1)] if ordered else float("nan")


def table_of(shown: Mapping[str, Sequence[Figures]]) -> str:
    """A column for each side and round, then the medians."""
    columns = {
        f"{name} {number}": figures.numbers()
        for name, rounds in shown.items()
        for number, figures in enumerate(rounds, 1)
    }
    if any(len(rounds) > 1 for rounds in shown.values()):
        columns |= {f"{name} median": medians(rounds) for name, rounds in shown.items()}
    rows = list(dict.fromkeys(row for column_ in columns.values() for row in column_))
    head = f"{'':<34}" + "".join(f"{name:>18}" for name in columns)
    lines = [f"{row:<34}" + "".join(_cell(c.get(row)) for c in columns.values()) for row in rows]
    return "\n".join([head, *lines])


def _cell(value: float | None) -> str:
    return f"{'-':>18}" if value is None else f"{value:>18,.2f}"


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    numbers = [figures.numbers() for figures in rounds]
    return {name: median(each.get(name, 0.0) for each in numbers) for name in numbers[0]}


def ratios(shown: Mapping[str, Sequence[Figures]]) -> dict[str, float]:
    """Ours as a share of the rival's, of the medians."""
    ours, theirs = (medians(rounds) for rounds in shown.values())
    return {name: ours[name] / theirs[name] for name in ("wall_s", "cpu_ms_per_customer", "ack_p99_ms")}


def main() -> None:
    options = parser().parse_args()
    if options.versus and options.database != "sqlite":
        raise SystemExit("the rival keeps its rows in SQLite: leave out --database or --versus")
    names = [OURS, options.versus] if options.versus else [options.only or OURS]
    shown: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            note(f"round {number + 1} of {options.rounds}: {name}, load {os.getloadavg()[0]:.1f}")
            shown[name].append(measure(SIDES[name], options))
    report(options, shown)
    if not all(figures.is_right() for rounds in shown.values() for figures in rounds):
        raise SystemExit("a customer is not ready, or has two syncs")


def report(options: argparse.Namespace, shown: Mapping[str, Sequence[Figures]]) -> None:
    compared = ratios(shown) if len(shown) > 1 else {}
    if options.json:
        sides = {name: [asdict(figures) for figures in rounds] for name, rounds in shown.items()}
        print(json.dumps(sides | ({"ratios": compared} if compared else {})))
        return
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.database}")
    print(table_of(shown))
    for name, ratio in compared.items():
        print(f"{OURS} / {options.versus}, medians: {name:<20} {ratio:>6.2f}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    rivals = sorted(set(SIDES) - {OURS})
    result.add_argument("--signups", type=int, default=1000)
    result.add_argument("--connections", type=int, default=64, help="signups under way at once")
    result.add_argument("--versus", choices=rivals, help="measure this one as well, in turn")
    result.add_argument("--only", choices=rivals, help="measure this one alone")
    result.add_argument("--rounds", type=int, default=1)
    result.add_argument("--database", choices=KINDS, default="sqlite")
    result.add_argument("--latency-ms", type=float, default=20, help="how long the API takes to answer")
    result.add_argument("--seed", type=int, default=1, help="of the backfills' lengths")
    result.add_argument("--changes-feed", action="store_true", help="the API tells what changed")
    result.add_argument("--give-up-after-s", type=float, default=300)
    result.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return result


if __name__ == "__main__":
    main()
