"""Does one customer with thousands of connections hold up the others?

    .venv/bin/python -m benchmarks.fairness [--big 5000] [--small 200] [--database postgresql]

Runs the worker's whole stack three times beside an independent Management API server: with the small
customers alone, with a tenant of many connections that signs up just before them, and with one that signs up
just after them. Prints the median and the 95th percentile of the time that a small customer waits from its
signup until it is ready, and the ratio to the run without the big one.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import DateTime, Engine, Uuid, column, create_engine, func, select, table

from benchmarks.burst import LOOK_EVERY_S, quantile
from benchmarks.load import Message, send, signups
from benchmarks.sides import gangway, management_api, note
from tests.support.databases import KINDS, empty_database
from worker.cli.sending import signed_headers

BIG: Final = "big"
PER_EVENT: Final = 1_000
CONNECTIONS: Final = 64
API: Final = ("--latency-ms", "20", "--seed", "1", "--backfill-min-s", "0.3", "--backfill-max-s", "1")
TENANT: Final = table("tenant", column("id", Uuid), column("external_id"))
CONNECTION: Final = table("connection", column("tenant_id", Uuid), column("ready_at", DateTime))


@dataclass(frozen=True)
class Waits:
    """How long the small customers waited, in order, and until everything was ready."""

    small_s: Sequence[float]
    all_s: float


def big_tenant(connections: int, secret: str) -> list[Message]:
    """One customer's signup, in events of as many connections as one may hold."""
    return [
        _event(range(start, min(start + PER_EVENT, connections)), secret)
        for start in range(0, connections, PER_EVENT)
    ]


def _event(slots: Sequence[int], secret: str) -> Message:
    wanted: list[dict[str, Any]] = [
        {
            "provider": "stripe",
            "slot": f"slot{number}",
            "credential": {"properties": {"kind": "stripe_key", "secret": f"sk_test_big{number:08}"}},
        }
        for number in slots
    ]
    data = {"external_id": BIG, "name": "Big", "connections": wanted}
    event = {"type": "tenant.created", "timestamp": datetime.now(UTC).isoformat(), "data": data}
    body = json.dumps(event).encode()
    return Message(BIG, body, signed_headers(body, secret, f"msg_big_{slots[0]}"))


async def measure(url: str, home: Path, options: argparse.Namespace, order: Sequence[str]) -> Waits:
    async with management_api(home, API) as api, gangway(home, api.url, url) as running:
        groups = {
            "big": big_tenant(options.big, running.webhook_secret),
            "small": signups(options.small, running.webhook_secret),
        }
        database = create_engine(running.database_url)
        began, sent_at = time.time(), dict[str, float]()
        for name in order:
            sent_at |= (await send(running.webhook_url, groups[name], CONNECTIONS)).at
        wanted = sum({"big": options.big, "small": options.small}[name] for name in order)
        await _until_ready(database, wanted, options.give_up_after_s)
        all_s = time.time() - began
        ready_at = _ready_at(database)
        database.dispose()
        waits = sorted(ready_at[name] - at for name, at in sent_at.items() if name != BIG)
        return Waits(waits, all_s)


async def _until_ready(database: Engine, wanted: int, give_up_after_s: float) -> None:
    ready = select(func.count()).select_from(CONNECTION).where(CONNECTION.c.ready_at.is_not(None))
    give_up_at = time.monotonic() + give_up_after_s
    while time.monotonic() < give_up_at:
        with database.connect() as connection:
            if connection.execute(ready).scalar_one() >= wanted:
                return
        await asyncio.sleep(LOOK_EVERY_S)
    raise SystemExit(f"not everybody is ready after {give_up_after_s:g} s")


def _ready_at(database: Engine) -> dict[str, float]:
    with database.connect() as connection:
        rows = connection.execute(
            select(TENANT.c.external_id, CONNECTION.c.ready_at).join(
                CONNECTION, CONNECTION.c.tenant_id == TENANT.c.id
            )
        ).all()
    return {
        str(external_id): (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        for external_id, at in rows
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--big", type=int, default=5_000, help="connections of the big tenant")
    parser.add_argument("--small", type=int, default=200, help="small customers, of one connection each")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--give-up-after-s", type=float, default=300.0)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.database}")
    alone: Waits | None = None
    for name, order in (
        ("small alone", ["small"]),
        ("big first", ["big", "small"]),
        ("big last", ["small", "big"]),
    ):
        note(f"{name}, load {os.getloadavg()[0]:.1f}")
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gangway-fairness-")))
            url = stack.enter_context(empty_database(options.database, home))
            waits = asyncio.run(measure(url, home, options, order))
        alone = alone or waits
        median = quantile(waits.small_s, 0.5)
        ratio = median / quantile(alone.small_s, 0.5)
        print(
            f"{name:<12} small customers: median {median:.2f} s, p95 {quantile(waits.small_s, 0.95):.2f} s, "
            f"{ratio:.2f} of alone; all ready after {waits.all_s:.1f} s"
        )


if __name__ == "__main__":
    main()
