"""The migrations: what earlier releases stored is carried over, row by row."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import Column, MetaData, Table, Uuid, insert, text
from sqlmodel import select

from foundation.database import Database, UtcDateTime
from foundation.migrations import _config, differences, upgrade
from models import MIGRATIONS, Connection, Lane, Row, State, Step, Tenant, Work
from tests.support.rows import NOW

DUE = NOW + timedelta(seconds=7)
TENANT = UUID(int=1)
NOT_DUE = {State.AWAITING_CREDENTIAL, State.FAILED, State.PAUSED, State.REMOVED}
"""States whose rows 0001 left without a moment at which they are due."""
WITHOUT_SYNC = {State.AWAITING_CREDENTIAL, State.REQUESTED, State.CAPTURED, State.REMOVED}


def old_row(state: State, **columns: Any) -> dict[str, Any]:
    """A connection as release 0001 stored it."""
    defaults: dict[str, Any] = {
        "id": uuid4(),
        "tenant_id": TENANT,
        "provider": "stripe",
        "slot": uuid4().hex,
        "state": state.value,
        "overrides": json.dumps({"max_age_days": 3}),
        "clock": json.dumps({"credential": "2026-05-04T12:00:00+00:00"}),
        "revision": 2,
        "applied_revision": 2,
        "remote_sync_id": None if state in WITHOUT_SYNC else f"sync_{state}",
        "due_at": None if state in NOT_DUE else DUE,
        "fence": 5,
        "attempts": 3,
        "polls": 40,
        "error_code": "credential_rejected" if state is State.FAILED else None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return defaults | columns


@pytest.fixture
def old(empty_database_url: str) -> Any:
    """A database of release 0001, with its tenant."""
    database = Database(empty_database_url)
    with database.engine.begin() as connection:
        config = _config(MIGRATIONS)
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    tenant = {"id": TENANT, "external_id": "org_1", "plan": "default", "is_announced": True}
    store(
        database,
        "tenant",
        tenant | {"metadata": "{}", "is_removed": False, "clock": "{}", "created_at": NOW, "updated_at": NOW},
    )
    yield database
    database.dispose()


def store(database: Database, name: str, row: dict[str, Any]) -> None:
    kinds = {UUID: Uuid, datetime: UtcDateTime}
    with database.engine.begin() as connection:
        if name == "connection" and not database.is_sqlite:
            row = row | {key: json.loads(row[key]) for key in ("overrides", "clock")}
        table = Table(name, MetaData(), autoload_with=connection)
        if database.is_sqlite:
            table = Table(name, MetaData(), *(Column(k, kinds.get(type(v))) for k, v in row.items()))
        elif name == "tenant":
            row = row | {"metadata": {}, "clock": {}}
        connection.execute(insert(table).values(row))


def work_after(database: Database, *rows: dict[str, Any]) -> dict[tuple[UUID, Lane], Work]:
    """All work after the upgrade of a database with these connections."""
    for row in rows:
        store(database, "connection", row)
    upgrade(database, MIGRATIONS)
    with database.read() as session:
        return {(each.connection_id, each.lane): each for each in session.exec(select(Work))}


STEPS = {
    State.REQUESTED: Step.CAPTURE,
    State.CAPTURED: Step.CREATE,
    State.REMOVING: Step.REMOVE,
    State.BACKFILLING: Step.POLL,
    State.READY: Step.POLL,
    State.DEGRADED: Step.POLL,
    State.PAUSED: Step.POLL,
    State.FAILED: Step.POLL,
}


def test_rows_of_every_state_are_carried_over(old: Database) -> None:
    """Each connection goes on with the step that its state asks for, when it was due and under its fence."""
    rows = {state: old_row(state) for state in State}

    work = work_after(old, *rows.values())

    found = {state: work.get((row["id"], Lane.LIFECYCLE)) for state, row in rows.items()}
    assert {state: each.step for state, each in found.items() if each} == STEPS
    for state, each in found.items():
        if each is not None:
            due_at = NOW if state in NOT_DUE else DUE
            assert (each.due_at, each.turn_at, each.fence) == (due_at, due_at, 5)
            assert (each.tenant_id, each.attempts, each.leased_until, each.lost_leases) == (
                TENANT,
                0,
                None,
                0,
            )
    assert len(work) == len(STEPS)


def test_failed_connection_without_a_sync_waits_for_an_event(old: Database) -> None:
    """There is nothing to look at."""
    assert work_after(old, old_row(State.FAILED, remote_sync_id=None)) == {}


@pytest.mark.parametrize("state", State)
def test_change_that_was_not_made_yet_becomes_work(old: Database, state: State) -> None:
    """A sync that is behind what is wanted is brought up to date, beside being watched."""
    row = old_row(state, revision=3)

    work = work_after(old, row)

    changes = work.get((row["id"], Lane.CHANGES))
    is_watched = state in {State.BACKFILLING, State.READY, State.DEGRADED, State.PAUSED}
    assert (changes is not None) is is_watched
    if changes is not None:
        assert (changes.step, changes.due_at, changes.fence) == (Step.UPDATE, NOW, 0)


def test_what_is_known_of_connections_stays(old: Database) -> None:
    """The upgrade changes nothing that a connection says, and the models fit the schema."""
    row = old_row(State.READY)
    work_after(old, row)

    with old.read() as session:
        kept = session.exec(select(Connection)).one()
        assert (kept.id, kept.tenant_id, kept.state) == (row["id"], TENANT, State.READY)
        assert (kept.overrides, kept.revision) == ({"max_age_days": 3}, 2)
        assert (kept.remote_sync_id, kept.updated_at) == ("sync_ready", NOW)
        assert (kept.change_problem, kept.refused_at) == (None, None)
        assert session.exec(select(Tenant.external_id, Tenant.spread_after)).one() == ("org_1", None)
    assert differences(old, Row.metadata) == []


def test_history_stays(old: Database) -> None:
    """Rows that refer to connections survive that their table is rebuilt."""
    row = old_row(State.READY)
    store(old, "connection", row)
    move = {"id": uuid4(), "connection_id": row["id"], "tenant_id": TENANT, "at": NOW}
    store(
        old,
        "transition",
        move | {"from_state": "backfilling", "to_state": "ready", "why": "backfilled", "attempt": 1},
    )

    upgrade(old, MIGRATIONS)

    with old.read() as session:
        assert session.execute(text("SELECT why FROM transition")).scalar_one() == "backfilled"
