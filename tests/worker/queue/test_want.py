"""Wanting work: after an event the rows say what is next, and no step under way is disturbed needlessly."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import col, select

from foundation.database import Database
from models import Connection, Lane, State, Step, Tenant, Work
from models.lifecycle import WITH_SYNC
from tests.support.rows import LONG_AGO, NOW, a_connection, a_tenant, a_work, add, added, all_of, work_of
from worker.policy import RetryPolicy
from worker.queue.claims import claim
from worker.queue.turns import SPACING
from worker.queue.want import want_work

SOON = NOW + timedelta(seconds=5)
FREE: dict[str, Any] = {"due_at": SOON, "attempts": 4}
HELD: dict[str, Any] = {"due_at": SOON, "leased_until": SOON, "attempts": 4, "fence": 7}


def want(database: Database, *rows: Connection, **columns: Any) -> set[Step]:
    """Change these connections as an event would, and want what follows."""
    with database.write() as session:
        ids = [row.id for row in rows]
        changed = session.exec(select(Connection).where(col(Connection.id).in_(ids))).all()
        for row in changed:
            for name, value in columns.items():
                setattr(row, name, value)
        session.flush()
        return want_work(session, changed, now=NOW)


@pytest.mark.parametrize("state", State)
def test_new_connection_gets_the_work_of_its_state(database: Database, state: State) -> None:
    """A connection without any work is due for the step that its state asks for, or for nothing."""
    connection = a_connection(a_tenant(), state=state)
    tenant = a_tenant(id=connection.tenant_id)
    add(database, tenant, connection)

    steps = want(database, connection)

    wanted = {connection.next_step} - {None}
    assert steps == wanted == {work.step for work in all_of(database, Work)}
    assert all((work.due_at, work.turn_at) == (NOW, NOW) for work in all_of(database, Work))


@pytest.mark.parametrize("state", State)
def test_outdated_sync_is_brought_up_to_date(database: Database, state: State) -> None:
    """A wanted change is work of its own, beside the lifecycle, wherever a sync is watched."""
    connection = added(database, state=state, work=FREE)

    steps = want(database, connection, revision=2)

    assert (Step.UPDATE in steps) is (state in WITH_SYNC)
    changes = [work for work in all_of(database, Work) if work.lane is Lane.CHANGES]
    assert [(work.step, work.due_at) for work in changes] == ([(Step.UPDATE, NOW)] if changes else [])
    assert bool(changes) is (state in WITH_SYNC)


def test_poll_goes_on_at_its_own_pace(database: Database) -> None:
    """An event that changes nothing for the sync does not have it looked at sooner."""
    connection = added(database, state=State.READY, work=HELD)

    assert want(database, connection) == set()

    work = work_of(database, connection)
    assert (work.due_at, work.leased_until, work.fence, work.attempts) == (SOON, SOON, 7, 4)


def test_waiting_step_is_due_at_once_with_all_its_attempts(database: Database) -> None:
    """News may have removed the cause: a row that waits for its next try is tried now."""
    connection = added(database, work=FREE)

    assert want(database, connection) == {Step.CAPTURE}

    work = work_of(database, connection)
    assert (work.due_at, work.turn_at, work.attempts, work.leased_until) == (NOW, NOW, 0, None)


def test_poll_under_way_gives_way(database: Database) -> None:
    """A poll only looks: its lease is taken away, and what it will find is about the past."""
    connection = added(database, state=State.READY, work=HELD)

    assert want(database, connection, state=State.REQUESTED) == {Step.CAPTURE}

    work = work_of(database, connection)
    assert (work.step, work.due_at, work.leased_until, work.fence) == (Step.CAPTURE, NOW, None, 8)


@pytest.mark.parametrize("state", [State.REQUESTED, State.CAPTURED, State.REMOVING])
def test_step_that_changes_something_keeps_its_lease(database: Database, state: State) -> None:
    """Its end starts the next step: two workers never change one connection at the same time."""
    connection = added(database, state=state, work=HELD)

    assert want(database, connection, state=State.REMOVING) == set()

    work = work_of(database, connection)
    assert (work.due_at, work.leased_until, work.fence) == (SOON, SOON, 7)


def test_end_of_a_dead_worker_starts_the_step_wanted_by_then(database: Database) -> None:
    """If the holder never records, the next claim is for what is wanted now, not for what was."""
    connection = added(database, state=State.CAPTURED, work=HELD)
    want(database, connection, state=State.REMOVING)

    def take(step: Step) -> int:
        policy = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))
        with database.write() as session:
            lease = timedelta(seconds=10)
            return len(claim(session, step, limit=1, now=SOON, lease=lease, policy=policy).claims)

    assert (take(Step.CREATE), take(Step.REMOVE)) == (0, 1)


def test_lease_that_ran_out_is_no_lease(database: Database) -> None:
    """A dead worker's row is wanted like any other."""
    connection = added(database, work=HELD | {"leased_until": LONG_AGO})

    assert want(database, connection) == {Step.CAPTURE}
    assert work_of(database, connection).fence == 8


def test_update_under_way_keeps_its_lease(database: Database) -> None:
    """Its end finds the newer wish and sends that."""
    connection = added(database, state=State.READY, work=FREE)
    add(database, a_work(connection, lane=Lane.CHANGES, **HELD))

    assert want(database, connection, revision=3) == set()

    work = work_of(database, connection, Lane.CHANGES)
    assert (work.due_at, work.leased_until, work.fence) == (SOON, SOON, 7)


def test_connection_that_waits_for_somebody_is_not_due(database: Database) -> None:
    """A state without a step takes back what was due."""
    connection = added(database, work=FREE)

    assert want(database, connection, state=State.AWAITING_CREDENTIAL) == set()
    assert work_of(database, connection).due_at is None


def test_rows_of_a_tenant_take_turns(database: Database) -> None:
    """Each further row of a tenant comes later, behind those that wait already; another tenant's does not."""
    tenant, other = a_tenant(), a_tenant()
    add(database, tenant, other)
    for _ in range(2):
        added(database, tenant)
    rows = [added(database, tenant, work={"due_at": None}) for _ in range(3)]
    single = added(database, other, work={"due_at": None})

    want(database, *rows, single)

    turns = sorted(work_of(database, row).turn_at or LONG_AGO for row in rows)
    assert turns == [NOW + n * SPACING for n in (2, 3, 4)]
    assert {work_of(database, row).due_at for row in rows} == {NOW}
    assert work_of(database, single).turn_at == NOW


def test_steps_have_turns_of_their_own(database: Database) -> None:
    """A tenant's many captures do not delay its removal of another connection."""
    tenant = a_tenant()
    add(database, tenant)
    for _ in range(5):
        added(database, tenant)
    leaving = added(database, tenant, state=State.REMOVING, work={"due_at": None})

    want(database, leaving)

    assert work_of(database, leaving).turn_at == NOW


def test_new_tenants_need_no_look_at_the_queue(database: Database) -> None:
    """Connections just made have no rows to lock, and take turns all the same."""
    tenant: Tenant = a_tenant()
    rows = [a_connection(tenant) for _ in range(3)]
    with database.write() as session:
        session.add(tenant)
        session.flush()
        session.add_all(rows)
        session.flush()
        steps = want_work(session, rows, new={row.id for row in rows}, new_tenants={tenant.id}, now=NOW)

    assert steps == {Step.CAPTURE}
    turns = sorted(work.turn_at or LONG_AGO for work in all_of(database, Work))
    assert turns == [NOW + n * SPACING for n in range(3)]
