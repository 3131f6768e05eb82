"""What do the queue's own queries cost at a million connections, and do they use their indexes?

    .venv/bin/python -m benchmarks.queue [--connections 1000000] [--database sqlite|postgresql] [--claims 50]

Fills an empty database with ready connections, of which some are due, and prints the plan of each statement
that claims work, counts it for the sweep, and shows tenants to operators, with how long each takes. The
command fails if a plan reads a whole table, or if a claim of 100 rows takes longer than 5 ms in the median.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

from sqlalchemy import event, insert, text
from sqlmodel import Session

from foundation.database import Database, new_id, utc_now
from foundation.migrations import upgrade
from models import MIGRATIONS, Lane, Row, State, Step, TenantState
from tests.support.databases import KINDS, empty_database
from worker.cli.overview import overview
from worker.policy import RetryPolicy
from worker.queue.claims import claim
from worker.queue.schedule import due_counts

PER_TRANSACTION: Final = 10_000
DUE: Final = 20_000
"""Connections of the million that have a credential to be captured."""
FAILED: Final = 50
CLAIMED: Final = 100
LIMIT_MS: Final = 5.0
POLICY: Final = RetryPolicy(8, timedelta(minutes=15))
LEASE: Final = timedelta(seconds=10)
TABLES: Final = ("tenant", "connection", "work")


@dataclass(frozen=True)
class Query:
    """One thing that is asked of the database, and what it took."""

    name: str
    ms: float
    plans: Sequence[str]

    @property
    def scans(self) -> list[str]:
        """Lines of the plans that read a whole table."""
        whole = [f"SCAN {table}" for table in TABLES] + [f"Seq Scan on {table}" for table in TABLES]
        lines = [line for plan in self.plans for line in plan.splitlines()]
        return [line for line in lines if any(each in line for each in whole) and "INDEX" not in line]


def fill(database: Database, count: int) -> None:
    """Ready connections of a tenant each; some are due to be captured, a few have failed."""
    now = utc_now()
    tables = [Row.metadata.tables[name] for name in TABLES]
    for start in range(0, count, PER_TRANSACTION):
        rows = [_rows(number, count, now) for number in range(start, min(start + PER_TRANSACTION, count))]
        with database.write() as session:
            for table, values in zip(tables, zip(*rows, strict=True), strict=True):
                session.connection().execute(insert(table), list(values))
    with database.engine.begin() as connection:
        connection.execute(text("ANALYZE"))


def _rows(number: int, count: int, now: datetime) -> tuple[dict[str, Any], ...]:
    tenant_id, connection_id = new_id(), new_id()
    is_due, is_failed = number % max(count // DUE, 1) == 0, number % max(count // FAILED, 1) == 1
    state = State.REQUESTED if is_due else State.FAILED if is_failed else State.READY
    due_at = now - timedelta(seconds=1) if is_due else now + timedelta(seconds=60 + number % 300)
    tenant = {
        "id": tenant_id,
        "external_id": f"org_{number}",
        "name": f"Customer {number}",
        "plan": "default",
        "metadata": {},
        "is_announced": True,
        "is_removed": False,
        "clock": {},
        "created_at": now,
        "updated_at": now,
    }
    connection = {
        "id": connection_id,
        "tenant_id": tenant_id,
        "provider": "stripe",
        "slot": "default",
        "state": state,
        "overrides": {},
        "clock": {},
        "revision": 1,
        "applied_revision": 1,
        "remote_sync_id": None if is_due else str(connection_id),
        "created_at": now,
        "updated_at": now,
    }
    work = {
        "connection_id": connection_id,
        "lane": Lane.LIFECYCLE,
        "tenant_id": tenant_id,
        "step": Step.CAPTURE if is_due else Step.POLL,
        "due_at": due_at,
        "turn_at": due_at,
        "fence": 0,
        "attempts": 0,
        "lost_leases": 0,
    }
    return tenant, connection, work


def ask(database: Database, name: str, question: Callable[[Session], object], times: int) -> Query:
    """Ask so many times; the plans are those of the last time."""
    taken = []
    for _ in range(times):
        with database.write() as session:
            began = time.perf_counter()
            question(session)
            session.flush()
            taken.append(1000 * (time.perf_counter() - began))
    with database.write() as session, _statements(session) as statements:
        question(session)
    return Query(name, median(taken), [_plan(database, *statement) for statement in statements])


@contextmanager
def _statements(session: Session) -> Iterator[list[tuple[str, Any]]]:
    """What the session sends, with its parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, many: bool) -> None:
        if not many and statement.lstrip()[:6].upper() in {"SELECT", "UPDATE", "WITH N"}:
            sent.append((statement, parameters))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _plan(database: Database, statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
        connection.rollback()
    return "\n".join(str(row[-1]) for row in rows)


def measure(kind: str, count: int, claims: int) -> list[Query]:
    with (
        tempfile.TemporaryDirectory(prefix="gangway-queue-") as home,
        empty_database(kind, Path(home)) as url,
    ):
        database = Database(url)
        upgrade(database, MIGRATIONS)
        began = time.monotonic()
        fill(database, count)
        print(f"{kind}: {count:,} connections filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        queries = [
            ask(database, f"claim of {CLAIMED} rows", _claim(database), claims),
            ask(database, "sweep", lambda s: due_counts(s, now=database.now(s), at_most=4_000), 10),
            ask(database, "status", lambda s: overview(s, limit=50), 3),
            *(ask(database, name, question, 3) for name, question in _lists().items()),
        ]
        database.dispose()
        return queries


def _claim(database: Database) -> Callable[[Session], object]:
    def question(session: Session) -> object:
        now = database.now(session)
        return claim(session, Step.CAPTURE, limit=CLAIMED, now=now, lease=LEASE, policy=POLICY)

    return question


def _lists() -> dict[str, Callable[[Session], object]]:
    from worker.web.tenant_pages import page_of_tenants

    return {
        "list": lambda s: page_of_tenants(s, None, 100, None),
        "list of failed": lambda s: page_of_tenants(s, TenantState.FAILED, 100, None),
        "list of ready": lambda s: page_of_tenants(s, TenantState.READY, 100, None),
    }


def report(kind: str, queries: Sequence[Query], *, show_plans: bool) -> list[str]:
    """Print the figures; returns what is wrong with them."""
    wrong = []
    for query in queries:
        print(f"{kind:<11} {query.name:<20} {query.ms:>9.2f} ms  {len(query.plans)} statements")
        for plan in query.plans if show_plans else ():
            print("    " + plan.replace("\n", "\n    "))
        wrong += [f"{kind}: {query.name} reads a whole table: {line.strip()}" for line in query.scans]
    claimed = queries[0]
    if claimed.ms > LIMIT_MS:
        wrong.append(f"{kind}: {claimed.name} took {claimed.ms:.1f} ms, more than {LIMIT_MS:g} ms")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--database", choices=KINDS, help="one kind; both if not given")
    parser.add_argument("--claims", type=int, default=50, help="how many claims to measure")
    parser.add_argument("--plans", action="store_true", help="print every plan")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    wrong: list[str] = []
    for kind in (options.database,) if options.database else KINDS:
        queries = measure(kind, options.connections, options.claims)
        wrong += report(kind, queries, show_plans=options.plans)
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
