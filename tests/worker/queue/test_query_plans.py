"""How databases find work: the tables may be long, so nothing that runs often may read them through."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import event, insert, text
from sqlmodel import Session, col, select

from foundation.database import Database
from models import Connection, Lane, State, Step, Tenant, Work
from tests.support.rows import NOW, a_claim, a_connection, a_tenant, a_work
from worker.cli.overview import overview, tenant_detail
from worker.policy import RetryPolicy
from worker.queue.claims import claim, take_over_polls, watched_by_sync
from worker.queue.incidents import in_incident
from worker.queue.record import record
from worker.queue.schedule import due_counts, wake_parked, want_polls_again
from worker.queue.turns import rows_ahead
from worker.queue.verdict import Claim, Verdict

TENANTS, CONNECTIONS = 4_000, 20_000
POLICY = RetryPolicy(max_attempts=8, parked_pace=timedelta(minutes=15))
LEASE = timedelta(seconds=10)
STATES = [
    State.REQUESTED,
    State.CAPTURED,
    State.REMOVING,
    State.FAILED,
    State.DEGRADED,
    State.BACKFILLING,
    *[State.READY] * 94,
]
STEPS = {State.REQUESTED: Step.CAPTURE, State.CAPTURED: Step.CREATE, State.REMOVING: Step.REMOVE}
PROBLEMS = {State.DEGRADED: "credential_rejected", State.BACKFILLING: "api_unavailable"}
TENANT = a_tenant().model_dump(exclude={"metadata_"}) | {"metadata": {}}
CONNECTION = a_connection(a_tenant(), applied_revision=1).model_dump()
WORK = a_work(a_connection(a_tenant()), attempts=9).model_dump()


def fill(database: Database) -> None:
    """Twenty thousand connections, nearly all of them ready and waiting, as they are in a long life."""
    rows = [_rows(n) for n in range(1, CONNECTIONS + 1)]
    with database.write() as session:
        connection = session.connection()
        connection.execute(insert(Tenant), [_tenant(n) for n in range(1, TENANTS + 1)])
        connection.execute(insert(Connection), [row for row, _ in rows])
        connection.execute(insert(Work), [work for _, some in rows for work in some])
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()


def an_id(n: int) -> UUID:
    return UUID(int=n << 80 | 7 << 76 | 2 << 62)


def _tenant(n: int) -> dict[str, Any]:
    return TENANT | {"id": an_id(n), "external_id": f"org_{n}"}


def _rows(n: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The columns of a connection and of its work."""
    state, ids = STATES[n % 100], {"connection_id": an_id(n), "tenant_id": an_id(n % TENANTS + 1)}
    past, later = NOW - timedelta(seconds=n), NOW + timedelta(seconds=n)
    row = CONNECTION | {
        "id": ids["connection_id"],
        "tenant_id": ids["tenant_id"],
        "slot": f"slot{n}",
        "state": state,
        "remote_sync_id": f"sync_{n}",
        "error_code": PROBLEMS.get(state),
        "refused_at": past if state is State.DEGRADED else None,
    }
    due_at = past if state in STEPS or n % 100 == 50 else later
    turn_at = later if n % 200 < 100 else due_at
    work = WORK | ids | {"step": STEPS.get(state, Step.POLL), "due_at": due_at, "turn_at": turn_at}
    if n % 4 != 3:
        return row, [work]
    due = past if n % 100 == 51 else None
    return row, [
        work,
        WORK | ids | {"lane": Lane.CHANGES, "step": Step.UPDATE, "due_at": due, "turn_at": due},
    ]


Plans = dict[str, str]


@contextmanager
def explained(session: Session, plans: Plans) -> Iterator[None]:
    """Note how the database would run each statement of the block."""
    connection = session.connection()
    is_sqlite = connection.dialect.name == "sqlite"
    prefix = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "

    def note(
        _connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, is_many: bool
    ) -> None:
        if is_many or statement.startswith(("EXPLAIN", "SAVEPOINT", "RELEASE", "INSERT", "SET")):
            return
        rows = connection.exec_driver_sql(prefix + statement, values).all()
        plans[statement] = "\n".join(str(row[-1]) for row in rows)

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", note)


READ_THROUGH = re.compile(
    r"Seq Scan on (?:work|connection)\b.*"
    # a partial index holds few rows, so it may be read through
    r"|^SCAN (?:work|connection)\b(?! USING (?:COVERING )?INDEX ix_connection_(?:problem|refused)).*",
    re.MULTILINE,
)


SORTS = re.compile(r"TEMP B-TREE FOR ORDER BY|Sort Key: work\.turn_at")


def refused(session: Session) -> list[Claim]:
    rows = session.exec(select(Connection).where(col(Connection.refused_at).is_not(None)).limit(20)).all()
    return [a_claim(row, attempts=9) for row in rows]


def record_some(session: Session) -> None:
    """A batch of polls in which something has happened."""
    batch = claim(session, Step.POLL, limit=20, now=NOW + timedelta(days=1), lease=LEASE, policy=POLICY)
    news = Verdict("looked at", "x", facts={"health": "healthy"}, wait=timedelta(minutes=5))
    assert len(record(session, [(each, news) for each in batch.claims], now=NOW).results) == 20


IDS = [an_id(n) for n in range(1, 100)]
SYNCS = [f"sync_{n}" for n in range(7, 100)]
ASKED: dict[str, Callable[[Session], object]] = {
    **{
        f"claim {step}": lambda session, step=step: claim(
            session, step, limit=50, now=NOW, lease=LEASE, policy=POLICY
        )
        for step in Step
    },
    "claim many": lambda s: claim(s, Step.POLL, limit=1_000, now=NOW, lease=LEASE, policy=POLICY),
    "record": record_some,
    "due_counts": lambda s: due_counts(s, now=NOW, at_most=4_000),
    "wake_parked": lambda s: wake_parked(s, ["api_unavailable", "unusable_answer"], now=NOW, min_attempts=8),
    "want_polls_again": lambda s: want_polls_again(s, IDS[0], now=NOW, within=LEASE),
    "in_incident": lambda s: in_incident(s, refused(s), POLICY, now=NOW),
    "rows_ahead": lambda s: rows_ahead(s, IDS, Step.POLL, now=NOW),
    "watched_by_sync": lambda s: watched_by_sync(s, SYNCS, now=NOW),
    "take_over_polls": lambda s: take_over_polls(s, IDS, now=NOW, lease=LEASE, task_id=None),
    "overview": lambda s: overview(s, limit=50),
    "tenant_detail": lambda s: tenant_detail(s, "org_7"),
}


def test_indexes_serve_everything_that_runs_often(database: Database) -> None:
    """Claims, counts, wake-ups, incidents and the overview find their rows by an index."""
    fill(database)

    plans: dict[str, Plans] = {name: {} for name in ASKED}
    for name, ask in ASKED.items():
        with database.write() as session, explained(session, plans[name]):
            if not database.is_sqlite:
                # as for solid-state disks; or reading these few pages is cheaper than a few hundred look-ups
                session.execute(text("SET LOCAL random_page_cost = 1.1"))
            ask(session)
            session.flush()
            session.rollback()

    assert all(plans.values())
    told = [(f"{name}: {each}", plan) for name, some in plans.items() for each, plan in some.items()]
    assert [each for each in told if READ_THROUGH.search(each[1])] == []
    takes = [each for each in told if "next_rows" in each[0]]
    assert len(takes) >= len(Step)
    assert [each for each in takes if SORTS.search(each[1])] == []
