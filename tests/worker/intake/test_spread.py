"""Spreading: a customer's own change reaches its many connections in bounded steps."""

from typing import Any

import pytest
from sqlmodel import select

from foundation.database import Database
from foundation.vault import Vault
from models import Connection, Lane, State, Step, Tenant, Transition, Work
from tests.support.events import event, stripe
from tests.support.intake import accepted, message
from tests.support.rows import NOW, a_connection, a_tenant, a_work, all_of
from worker.intake import spread as spreading
from worker.intake.accept import APPLIED_AT_ONCE, Intake
from worker.intake.spread import is_spreading, spread
from worker.plans import Plans
from worker.queue.turns import SPACING
from worker.runtime import Runtime

COUNT = APPLIED_AT_ONCE + 10
STEP = 25


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "CONNECTIONS_PER_STEP", STEP)


@pytest.fixture
def intake(vault: Vault) -> Intake:
    """With a second plan to change to."""
    default = Plans.load().plans["default"]
    return Intake(vault, Plans(plans={"default": default, "large": default}))


def a_large_tenant(database: Database, external_id: str = "large", **columns: Any) -> Tenant:
    tenant = a_tenant(external_id=external_id, created_at=NOW)
    rows = [a_connection(tenant, **{"state": State.READY} | columns) for _ in range(COUNT)]
    with database.write() as session:
        session.add(tenant)
        session.flush()
        session.add_all(rows)
        session.flush()
        session.add_all(a_work(row) for row in rows)
    return tenant


def finish(runtime: Runtime, most: int = 20) -> list[int]:
    """Spread until nothing is left to do; returns how many connections each step changed."""
    done = []
    for _ in range(most):
        report = spread(runtime)
        if not report.is_full:
            return done
        done.append(sum(report.did.values()))
    raise AssertionError("it does not end")


@pytest.fixture
def large(runtime: Runtime) -> Tenant:
    return a_large_tenant(runtime.database)


def test_deletion_reaches_every_connection(runtime: Runtime, intake: Intake, large: Tenant) -> None:
    """Each step changes a bounded number; in the end all are being removed, one after the other."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.deleted", external_id="large")))
    assert {row.state for row in all_of(database, Connection)} == {State.READY}

    assert finish(runtime) == [25, 25, 10]

    assert {row.state for row in all_of(database, Connection)} == {State.REMOVING}
    works = all_of(database, Work)
    assert {row.step for row in works} == {Step.REMOVE}
    assert len(all_of(database, Transition)) == COUNT
    waits = sorted(row.turn_at - row.due_at for row in works)
    assert waits[-1] >= (COUNT - 1) * SPACING / 2, "a tenant's surplus comes after everyone else's first"
    with database.read() as session:
        assert not is_spreading(session)


@pytest.mark.parametrize("change", [{"name": "Renamed"}, {"plan": "large"}], ids=["name", "plan"])
def test_profile_reaches_every_connection(
    runtime: Runtime, intake: Intake, large: Tenant, change: dict[str, Any]
) -> None:
    """A new name or plan makes every sync be brought up to date; the watching goes on."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.updated", external_id="large", **change)))

    finish(runtime)

    assert {(row.state, row.is_outdated) for row in all_of(database, Connection)} == {(State.READY, True)}
    lanes = [(row.lane, row.step) for row in all_of(database, Work)]
    assert lanes.count((Lane.CHANGES, Step.UPDATE)) == lanes.count((Lane.LIFECYCLE, Step.POLL)) == COUNT


def test_change_that_arrives_meanwhile_reaches_everyone_too(
    runtime: Runtime, intake: Intake, large: Tenant
) -> None:
    """A second change starts over, so that connections done by the first get it as well."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.updated", external_id="large", name="Renamed")))
    assert spread(runtime).is_full

    accepted(database, intake, message(event("tenant.deleted", external_id="large", minute=1)))
    finish(runtime)

    assert {row.state for row in all_of(database, Connection)} == {State.REMOVING}


def test_signing_up_again_meanwhile_reaches_everyone(runtime: Runtime, intake: Intake, large: Tenant) -> None:
    """Who comes back while the deletion is being spread keeps the connections that it has not reached."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.deleted", external_id="large")))
    spread(runtime)

    back = event("tenant.created", stripe(slot="new"), external_id="large", minute=1)
    accepted(database, intake, message(back))
    finish(runtime)

    states = [row.state for row in all_of(database, Connection)]
    assert states.count(State.REMOVING) == STEP
    assert states.count(State.READY) == COUNT - STEP
    assert states.count(State.REQUESTED) == 1


def test_step_that_breaks_is_done_again(
    runtime: Runtime, intake: Intake, large: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies midway leaves the step undone, and the next one does it."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.deleted", external_id="large")))
    spread(runtime)

    def dies(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(spreading, "want_work", dies)
        with pytest.raises(MemoryError):
            spread(runtime)
    assert [row.state for row in all_of(database, Connection)].count(State.REMOVING) == STEP

    assert finish(runtime) == [25, 10]
    assert {row.state for row in all_of(database, Connection)} == {State.REMOVING}


def test_named_connection_does_not_wait_for_its_turn(runtime: Runtime, intake: Intake, large: Tenant) -> None:
    """An event that names a connection brings it up to date itself, also while a change is being spread."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.deleted", external_id="large")))
    last = max(all_of(database, Connection), key=lambda row: row.id)

    late = event("credential.provided", stripe(slot=last.slot), external_id="large", minute=-1)
    accepted(database, intake, message(late))

    with database.read() as session:
        row = session.get_one(Connection, last.id)
    assert (row.state, row.sealed_credential) == (State.REMOVING, None)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_workers_at_once_share_the_tenants(runtime: Runtime, intake: Intake, large: Tenant) -> None:
    """A tenant that another worker is changing is left to it, without waiting."""
    database = runtime.database
    accepted(database, intake, message(event("tenant.deleted", external_id="large")))

    with database.write() as session:
        session.exec(select(Tenant).with_for_update(key_share=True)).all()
        assert not spread(runtime).is_full

    assert spread(runtime).is_full


def test_tenant_that_changes_for_ever_keeps_nobody_waiting(
    runtime: Runtime, intake: Intake, large: Tenant
) -> None:
    """A tenant whose every step is undone by a new change does not keep another from being finished."""
    database = runtime.database
    other = a_large_tenant(database, "other")
    accepted(database, intake, message(event("tenant.deleted", external_id="other")))

    for n in range(200):
        accepted(
            database,
            intake,
            message(event("tenant.updated", external_id="large", name=f"N{n}", minute=n / 60)),
        )
        spread(runtime)
        with database.read() as session:
            if session.get_one(Tenant, other.id).spread_after is None:
                return
    raise AssertionError("the other tenant was starved")
