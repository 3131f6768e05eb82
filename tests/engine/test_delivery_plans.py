"""How databases find what a consumer gets next: a stream may be long, so nothing may scan or sort it."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event, text
from sqlmodel import Session

from engine.backfill.append import Arrival, Target, append
from engine.delivery import acknowledge, can_fill, pending, refuse, take
from engine.providers.records import UpstreamRecord
from engine.tables import Consumer
from foundation.database import Database, new_id, utc_now
from tests.engine.consuming import consumer

READS = ("SELECT", "DELETE")
SCANS = ("SCAN record", "SCAN delivery", "Seq Scan on record", "Seq Scan on delivery")
SORTS = ("TEMP B-TREE", "Sort Key")


@pytest.fixture
def path(api: httpx.Client, database: Database, stream: str, sync_body: dict[str, Any]) -> str:
    """A consumer of a stream of three records."""
    sync_id = UUID(api.post("/v1/syncs", json=sync_body).json()["id"])
    target = Target(UUID(stream), sync_id, "stripe:customer", new_id(), is_pass=True)
    records = [UpstreamRecord(f"cus_{n}", {"id": f"cus_{n}"}, "", None, None) for n in range(3)]
    with database.write() as session:
        append(session, target, [Arrival(each, utc_now()) for each in records], {}, utc_now())
    return consumer(api, stream, max_deliver=3)


def test_indexes_serve_what_comes_next(database: Database, path: str) -> None:
    """Every statement of `next` finds its rows, in their order, by an index."""
    with database.write() as session:
        _prefer_indexes(session, database)
        reader = session.get_one(Consumer, UUID(path.rpartition("/")[2]))
        asked = _asked(session, reader)
        plans = {statement: _plan(session, database, statement, values) for statement, values in asked}

    assert len(plans) > 8
    wrong = {name: plan for name, plan in plans.items() if any(each in plan for each in SCANS + SORTS)}
    assert wrong == {}


def _asked(session: Session, reader: Consumer) -> list[tuple[str, Any]]:
    """What is asked of the tables that grow, and with which values."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith(READS) and ("FROM record" in statement or "FROM delivery" in statement):
            asked.append((statement, values))

    event.listen(session.connection(), "before_cursor_execute", note)
    can_fill(session, reader, utc_now(), 10)
    messages = take(session, reader, utc_now(), 10)
    refuse(session, reader, [each.token for each in messages[:2]])
    acknowledge(session, reader, [each.token for each in messages[2:]])
    pending(session, reader, utc_now())
    event.remove(session.connection(), "before_cursor_execute", note)
    return asked


def _prefer_indexes(session: Session, database: Database) -> None:
    """PostgreSQL scans and sorts small tables: here it is to do so only where it has no other way."""
    for way in () if database.is_sqlite else ("seqscan", "bitmapscan", "sort", "incremental_sort"):
        session.exec(text(f"SET LOCAL enable_{way} = off"))  # type: ignore[call-overload]


def _plan(session: Session, database: Database, statement: str, values: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    rows = session.connection().exec_driver_sql(f"{explain} {statement}", values)
    return "\n".join(str(row[-1]) for row in rows)
