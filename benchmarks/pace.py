"""Does the rate limit of a sync hold at the provider, and is what it allows used?

    .venv/bin/python -m benchmarks.pace [--syncs 2] [--workers 3] [--allowed 10] [--interval 1] [--slow 20]

Starts the engine with several workers beside a provider that notes when each request arrives, and has it
backfill a few syncs of four collections each. Prints for each sync how many requests at most arrived within
any interval and were under way at once, and how long the backfill took compared to the ideal, the number of
requests divided by the rate. With `--slow`, so many syncs that may ask once a second backfill meanwhile, with
`--eager` so many without a limit; the others should hardly notice. Everything runs on loopback and ends with
the command, which fails if a limit broke.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.hints import new_celery
from foundation.queue import Role
from tests.e2e.arrivals import most_in_a_window
from tests.e2e.harness import Machine, Redis
from tests.e2e.peers import BulkStripe
from tests.e2e.services import Engine
from tests.support.databases import KINDS, empty_database

COLLECTIONS = ("charge", "customer", "invoice", "product")
PAGE = 100
GIVE_UP_AFTER_S = 300.0
AS_FAST_AS_CAN_BE = {"allowed_requests": 10_000, "interval": 1}
ONCE_A_SECOND = {"allowed_requests": 1, "interval": 1}


@dataclass(frozen=True)
class Figures:
    """What one sync's backfill showed."""

    name: str
    requests: int
    most_in_a_window: int
    most_under_way: int
    ideal_s: float
    took_s: float
    """From the creation of the sync to the completion of its backfill."""
    beyond_ideal_percent: float


def measure(options: argparse.Namespace) -> list[Figures]:
    """One run, from empty databases to complete backfills."""
    with (
        tempfile.TemporaryDirectory(prefix="gangway-pace-") as home,
        empty_database(options.database, Path(home)) as database_url,
        Machine(Path(home)) as machine,
    ):
        records = options.requests * PAGE // len(COLLECTIONS)
        stripe = BulkStripe(machine, records=records, latency_ms=options.latency_ms).start()
        broker_url = Redis(machine).start().url
        engine = Engine(machine, database_url=database_url, broker_url=broker_url, stripe_url=stripe.url)
        engine.workers += [engine.add_worker(f"worker-{number}") for number in range(2, options.workers + 1)]
        engine.start()
        control = new_celery(broker_url, Role.CONSUMER).control
        machine.wait_until(lambda: len(control.ping(timeout=1)) == options.workers, "all workers listen")
        return backfill(options, engine, stripe)


def backfill(options: argparse.Namespace, engine: Engine, stripe: BulkStripe) -> list[Figures]:
    """Create the syncs, wait for those that are measured, and ask the provider what it saw."""
    limit = {"allowed_requests": options.allowed, "interval": options.interval}
    limit["max_concurrent_requests"] = options.concurrent
    stream = engine.http.post("/streams", json={"slug": "main"}).raise_for_status().json()["id"]
    for number in range(options.slow):
        create(engine, stream, f"slow{number}", ONCE_A_SECOND)
    for number in range(options.eager):
        create(engine, stream, f"eager{number}", AS_FAST_AS_CAN_BE)
    names = [f"measured{number}" for number in range(options.syncs)]
    paths = [create(engine, stream, name, limit) for name in names]

    def completed(path: str) -> dict[str, Any] | None:
        sync: dict[str, Any] = engine.http.get(path).raise_for_status().json()
        return sync if sync["initial_backfill_completed_at"] else None

    engine.machine.wait_until(
        lambda: all(map(completed, paths)), "the backfills are complete", GIVE_UP_AFTER_S
    )
    arrivals, under_way = stripe.requests(), stripe.most_under_way()
    slow_ones = [account_of(stripe, f"slow{number}") for number in range(options.slow)]
    if any(most_in_a_window(arrivals[account], 1) > 1 for account in slow_ones):
        raise SystemExit("the limit of a slow sync broke")
    return [
        figures(options, sync, arrivals[account], under_way[account])
        for sync in map(completed, paths)
        if sync is not None
        for account in [account_of(stripe, sync["name"])]
    ]


def create(engine: Engine, stream: str, name: str, limit: dict[str, int]) -> str:
    """A sync of an account of its own; gives its path."""
    body = {
        "provider": "stripe",
        "stream_id": stream,
        "name": name,
        "collection_ids": [f"stripe:{collection}" for collection in COLLECTIONS],
        "rate_limit": limit,
        "credential": {"properties": {"kind": "stripe_key", "secret": key_of(name)}},
    }
    created = engine.http.post("/syncs", json=body).raise_for_status().json()
    return f"/syncs/{created['id']}"


def key_of(name: str) -> str:
    return f"sk_test_{name}"


def account_of(stripe: BulkStripe, name: str) -> str:
    return str(stripe.account(key_of(name)).get("/v1/account").json()["id"])


def figures(
    options: argparse.Namespace, sync: dict[str, Any], arrivals: list[float], most_under_way: int
) -> Figures:
    ideal_s = len(arrivals) / options.allowed * options.interval
    began, ended = (
        datetime.fromisoformat(sync[f"{what}_at"]) for what in ("created", "initial_backfill_completed")
    )
    took_s = (ended - began).total_seconds()
    return Figures(
        name=sync["name"],
        requests=len(arrivals),
        most_in_a_window=most_in_a_window(arrivals, options.interval),
        most_under_way=most_under_way,
        ideal_s=ideal_s,
        took_s=round(took_s, 2),
        beyond_ideal_percent=round(100 * (took_s / ideal_s - 1), 1),
    )


def holds(options: argparse.Namespace, shown: Figures) -> bool:
    """Whether the provider saw no more than was allowed, in time and at once."""
    is_crowded = 0 < options.concurrent < shown.most_under_way
    return shown.most_in_a_window <= options.allowed and not is_crowded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--syncs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60, help="pages of each sync, over four collections")
    parser.add_argument("--allowed", type=int, default=10, help="requests of each sync per interval")
    parser.add_argument("--interval", type=int, default=1, help="seconds")
    parser.add_argument("--concurrent", type=int, default=0, help="most requests of a sync at once; 0: any")
    parser.add_argument("--slow", type=int, default=0, help="further syncs that may ask once a second")
    parser.add_argument("--eager", type=int, default=0, help="further syncs that may ask as fast as they can")
    parser.add_argument("--latency-ms", type=float, default=10, help="how long the provider takes to answer")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object per sync and run")
    options = parser.parse_args()
    if not options.json:
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    broken = 0
    for _ in range(options.runs):
        for shown in measure(options):
            broken += not holds(options, shown)
            text = "  ".join(f"{name} {value}" for name, value in vars(shown).items())
            print(json.dumps(vars(shown)) if options.json else text, flush=True)
    if broken:
        raise SystemExit(f"{broken} limits broke")


if __name__ == "__main__":
    main()
