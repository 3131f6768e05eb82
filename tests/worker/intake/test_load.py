"""Loading: an event about a large customer reads, locks and answers what it names, and nothing else."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event as listen
from sqlalchemy import insert
from sqlmodel import Session, col, select

from foundation.database import Database, new_id
from models import Connection, Lane, State, Step, Tenant, Work
from tests.support.events import event, stripe
from tests.support.intake import accepted, message
from tests.support.rows import LONG_AGO, a_tenant, add, all_of
from worker.intake.accept import Accepted, Intake
from worker.tenants import states_of, with_more_connections_than

MANY = 10_000


@pytest.fixture
def large(database: Database) -> Tenant:
    """A customer with ten thousand connections in the state `ready`."""
    tenant = a_tenant(external_id="large", name="Large")
    add(database, tenant)
    add_connections(database, tenant, MANY)
    return tenant


def add_connections(database: Database, tenant: Tenant, count: int) -> None:
    ids = sorted(new_id() for _ in range(count))
    values: dict[str, Any] = {"tenant_id": tenant.id, "provider": "stripe", "state": State.READY}
    values |= {"overrides": {}, "clock": {}, "revision": 1, "applied_revision": 1, "remote_sync_id": "s"}
    values |= {"created_at": LONG_AGO, "updated_at": LONG_AGO}
    work: dict[str, Any] = {"tenant_id": tenant.id, "lane": Lane.LIFECYCLE, "step": Step.POLL}
    work |= {"fence": 0, "attempts": 0, "lost_leases": 0, "due_at": LONG_AGO, "turn_at": LONG_AGO}
    with database.write() as session:
        connection = session.connection()
        rows = [values | {"id": row_id, "slot": f"s{n:05}"} for n, row_id in enumerate(ids)]
        connection.execute(insert(Connection), rows)
        connection.execute(insert(Work), [work | {"connection_id": row_id} for row_id in ids])


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How many rows of each table are loaded, and how many are written."""
    rows: Counter[str] = Counter()

    def loaded(target: Any, _context: Any) -> None:
        rows[type(target).__name__] += 1

    def flushed(session: Session, _context: Any) -> None:
        rows["changed"] += len(session.dirty)

    for kind in (Tenant, Connection, Work):
        listen.listen(kind, "load", loaded)
    listen.listen(Session, "after_flush", flushed)
    try:
        yield rows
    finally:
        for kind in (Tenant, Connection, Work):
            listen.remove(kind, "load", loaded)
        listen.remove(Session, "after_flush", flushed)


def test_event_costs_what_it_names(database: Database, intake: Intake, large: Tenant) -> None:
    """Ten thousand connections more or less make no difference to an event that names one, or none."""
    events = {
        "nothing new": event("tenant.updated", external_id="large", name="Large"),
        "metadata": event("tenant.updated", external_id="large", metadata={"t": 1}, minute=1),
        "one named": event(
            "tenant.updated", stripe(None, slot="s00007", max_age_days=1), external_id="large"
        ),
        "a new one": event("credential.provided", stripe(slot="new"), external_id="large", minute=2),
        "a new name": event("tenant.updated", external_id="large", name="Renamed", minute=3),
        "deleted": event("tenant.deleted", external_id="large", minute=4),
    }
    found = {}
    for name, body in events.items():
        with counted() as rows:
            (outcome,) = accepted(database, intake, message(body))
        assert isinstance(outcome, Accepted)
        assert len(json.dumps(outcome.answer)) < 1_000
        found[name] = (rows["Tenant"], rows["Connection"], rows["Work"])

    nothing, one = (1, 0, 0), (1, 1, 1)
    assert found == {
        "nothing new": nothing,
        "metadata": nothing,
        "one named": one,
        "a new one": nothing,
        "a new name": nothing,
        "deleted": nothing,
    }
    (tenant,) = all_of(database, Tenant)
    assert tenant.spread_after is not None


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_others_of_the_customer_are_not_locked(database: Database, intake: Intake, large: Tenant) -> None:
    """While an event about one connection is being stored, workers may take and record all others."""
    named = event("tenant.updated", stripe(None, slot="s00007", max_age_days=1), external_id="large")
    renamed = event("tenant.updated", external_id="large", name="Renamed", minute=1)
    with database.write() as session:
        session.autoflush = False
        messages = [message(named), message(renamed)]
        intake.accept_all(session, messages, now=database.now(session))

        with database.write() as other:
            mine = select(Connection.id).where(col(Connection.tenant_id) == large.id)
            free = other.exec(mine.with_for_update(skip_locked=True)).all()
            works = other.exec(select(Work.connection_id).with_for_update(skip_locked=True)).all()

    assert (len(free), len(works)) == (MANY - 1, MANY - 1)


def test_small_customers_change_at_once(database: Database, intake: Intake) -> None:
    """Few connections are brought up to date by the event itself."""
    tenant = a_tenant(external_id="small")
    add(database, tenant)
    add_connections(database, tenant, 50)

    (outcome,) = accepted(database, intake, message(event("tenant.updated", external_id="small", name="New")))

    assert isinstance(outcome, Accepted)
    assert {row.revision for row in all_of(database, Connection)} == {2}
    assert len(outcome.answer["connections"]) == 50  # type: ignore[arg-type]  # an answer is JSON
    assert outcome.due == {Step.UPDATE}
    assert all_of(database, Tenant)[0].spread_after is None


def test_states_and_sizes_are_told_per_tenant(database: Database) -> None:
    """Which states there are, and who has more connections than a limit."""
    tenants = [a_tenant() for _ in range(3)]
    add(database, *tenants)
    for tenant, count in zip(tenants[1:], (3, 4), strict=True):
        add_connections(database, tenant, count)
    ids = [tenant.id for tenant in tenants]
    add(database, Connection(tenant_id=ids[1], provider="fax", state=State.FAILED))

    with database.read() as session:
        states = states_of(session, ids)
        more = [with_more_connections_than(session, count, ids) for count in (0, 3, 4)]
        nobody = (states_of(session, []), with_more_connections_than(session, 0, []))

    assert [states[each] for each in ids] == [set(), {State.READY, State.FAILED}, {State.READY}]
    assert more == [{ids[1], ids[2]}, {ids[1], ids[2]}, set()]
    assert nobody == ({}, set())
