"""How databases find the tenants of a page: by an index, however many there are."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import event, insert, text
from sqlmodel import Session

from foundation.database import Database, new_id
from models import Connection, State, Tenant, TenantState, Work
from tests.support.rows import NOW, a_connection, a_tenant, a_work
from worker.cli.overview import overview, tenant_detail
from worker.views import views_of
from worker.web.tenant_pages import page_of_tenants

COUNT, FAILED_EVERY, LARGE = 20_000, 1_000, 1_000
FULL_SCAN = re.compile(
    r"Seq Scan on (?:tenant|connection|work)\b|^SCAN (?:tenant|connection|work)$", re.MULTILINE
)
FROM_TENANT = re.compile(
    r"Index (?:Only )?Scan using ix_tenant_created_at_id|USING (?:COVERING )?INDEX ix_tenant_created"
)


TENANT = a_tenant().model_dump(exclude={"metadata_"}) | {"metadata": {}}
CONNECTION = a_connection(a_tenant(), applied_revision=1).model_dump()
WORK = a_work(a_connection(a_tenant(), state=State.READY)).model_dump()


def fill(database: Database) -> None:
    """Twenty thousand tenants with a connection each, twenty of them failed, and one with a thousand."""
    ids = sorted(new_id() for _ in range(COUNT))
    connections = [_connection(n, ids[n] if n < COUNT else ids[0]) for n in range(COUNT + LARGE)]
    with database.write() as session:
        connection = session.connection()
        connection.execute(insert(Tenant.__table__), [_tenant(n, each) for n, each in enumerate(ids)])  # type: ignore[attr-defined]
        connection.execute(insert(Connection), connections)
        of_these = [{"connection_id": row["id"], "tenant_id": row["tenant_id"]} for row in connections]
        connection.execute(insert(Work), [WORK | each for each in of_these])
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()


def _tenant(n: int, tenant_id: UUID) -> dict[str, Any]:
    return TENANT | {"id": tenant_id, "external_id": f"org_{n}", "created_at": NOW + timedelta(seconds=n)}


def _connection(n: int, tenant_id: UUID) -> dict[str, Any]:
    state = State.FAILED if n % FAILED_EVERY == FAILED_EVERY // 2 else State.READY
    at = NOW + timedelta(seconds=n)
    return CONNECTION | {
        "id": new_id(),
        "tenant_id": tenant_id,
        "slot": f"s{n}",
        "state": state,
        "created_at": at,
    }


def plans(database: Database, ask: Callable[[Session], object]) -> list[str]:
    """How the database runs each statement of this question."""
    asked: list[tuple[str, Any]] = []
    with database.read() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
        ask(session)
    how = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    with database.read() as session:
        connection = session.connection()
        explained = [connection.exec_driver_sql(f"{how} {what}", values) for what, values in asked]
        return ["\n".join(str(row[-1]) for row in rows) for rows in explained]


def pages(state: TenantState | None) -> Callable[[Session], object]:
    def ask(session: Session) -> object:
        first = page_of_tenants(session, state, 10, None)
        return views_of(session, page_of_tenants(session, state, 10, first.next).tenants)

    return ask


def test_tenants_are_found_by_an_index(database: Database) -> None:
    """Pages, one tenant, the overview: no statement reads a table through.

    A rare state is found by its connections, without a walk through the tenants; a common one by the next
    tenants, without their all connections.
    """
    fill(database)
    questions: dict[str, Callable[[Session], object]] = {
        "all": pages(None),
        "failed": pages(TenantState.FAILED),
        "ready": pages(TenantState.READY),
        "awaiting": pages(TenantState.AWAITING_CREDENTIAL),
        "removed": pages(TenantState.REMOVED),
        "large": lambda session: tenant_detail(session, "org_0"),
        "overview": lambda session: overview(session, limit=50),
    }

    found = {name: plans(database, ask) for name, ask in questions.items()}

    scans = {name: [plan for plan in each if FULL_SCAN.search(plan)] for name, each in found.items()}
    assert scans == {name: [] for name in questions}
    assert not any(FROM_TENANT.search(plan) for plan in found["failed"])
    assert sum(bool(FROM_TENANT.search(plan)) for plan in found["ready"]) >= 2
    assert not any("Hash" in plan for plan in found["ready"])
