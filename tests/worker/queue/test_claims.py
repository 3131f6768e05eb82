"""Claiming: of many that ask for a row, one gets it, for as long as its lease holds."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import select
from worker.rows.claims import ClaimLostError, claim, note_intent, renew
from worker.steps.verdict import Claim, RetryPolicy

from foundation.database import Database
from models import Connection, State, Step
from models.lifecycle import next_step
from tests.support.rows import LONG_AGO, NOW, a_connection, a_tenant, add, added, all_of, stored

LEASE = timedelta(seconds=10)
POLICY = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))


def take(database: Database, step: Step, *ids: UUID, **how: Any) -> list[Claim]:
    defaults: dict[str, Any] = {"now": NOW, "lease": LEASE, "policy": POLICY, "task_id": "task-1"}
    with database.write() as session:
        return claim(session, ids, step, **defaults | how)


def test_due_row_is_claimed(database: Database) -> None:
    """The claimer gets the row and its tenant, and the row says until when it is held."""
    tenant = a_tenant(name="Choam")
    connection = added(database, add_first(database, tenant), attempts=1, hinted_until=NOW)

    (taken,) = take(database, Step.CAPTURE, connection.id)

    row = stored(database, connection)
    assert (taken.connection.id, taken.tenant.name, taken.task_id) == (connection.id, "Choam", "task-1")
    assert row.leased_until == NOW + LEASE
    assert (row.fence, row.attempts, row.hinted_until) == (1, 2, None)


def add_first(database: Database, row: Any) -> Any:
    add(database, row)
    return row


@pytest.mark.parametrize("step", Step)
def test_only_the_next_step_can_be_claimed(database: Database, step: Step) -> None:
    """A message about a step takes the rows that ask for it, and none in any other state."""
    tenant = add_first(database, a_tenant())
    rows = [
        a_connection(tenant, state=state, revision=2, applied_revision=1 if outdated else 2)
        for state in State
        for outdated in (False, True)
    ]
    add(database, *rows)

    taken = take(database, step, *(row.id for row in rows))

    asking = {row.id for row in rows if next_step(row.state, is_outdated=row.is_outdated) is step}
    assert {each.connection.id for each in taken} == asking
    assert {row.id for row in all_of(database, Connection) if row.attempts} == asking


NOT_FREE: dict[str, dict[str, Any]] = {
    "leased": {"leased_until": NOW + timedelta(seconds=1)},
    "not due": {"due_at": NOW + timedelta(seconds=1)},
    "never due": {"due_at": None},
}


@pytest.mark.parametrize("columns", NOT_FREE.values(), ids=NOT_FREE.keys())
def test_row_that_is_held_or_not_due_is_left(database: Database, columns: dict[str, Any]) -> None:
    """A row is taken only when it is due and nobody holds it."""
    connection = added(database, **columns)

    assert take(database, Step.CAPTURE, connection.id) == []
    assert stored(database, connection).fence == 0


def test_second_claim_fails(database: Database) -> None:
    """A doubled message costs nothing: the row is already held."""
    connection = added(database)
    take(database, Step.CAPTURE, connection.id)

    assert take(database, Step.CAPTURE, connection.id, connection.id, uuid4()) == []


def test_row_is_free_again_once_its_lease_ran_out(database: Database) -> None:
    """The rows of a killed worker are taken over, under a new fence."""
    connection = added(database)
    take(database, Step.CAPTURE, connection.id)

    (second,) = take(database, Step.CAPTURE, connection.id, now=NOW + LEASE)

    assert second.connection.fence == 2
    assert second.connection.attempts == 2


def test_create_notes_its_intent_with_the_claim(database: Database) -> None:
    """Before anything is sent it is on record that a create may be; the first try knows of none before."""
    connection = added(database, state=State.CAPTURED)

    (first,) = take(database, Step.CREATE, connection.id)
    (second,) = take(database, Step.CREATE, connection.id, now=NOW + LEASE)

    assert first.earlier_create_at is None
    assert second.earlier_create_at == NOW
    assert stored(database, connection).create_sent_at == NOW


@pytest.mark.parametrize("step", [Step.CAPTURE, Step.POLL, Step.UPDATE, Step.REMOVE])
def test_other_steps_note_no_create(database: Database, step: Step) -> None:
    """Only a create is uncertain."""
    state = {Step.CAPTURE: State.REQUESTED, Step.REMOVE: State.REMOVING}.get(step, State.READY)
    connection = added(database, state=state, applied_revision=0 if step is Step.UPDATE else 1)

    assert take(database, step, connection.id)
    assert stored(database, connection).create_sent_at is None


def test_row_that_kills_its_workers_is_parked(database: Database) -> None:
    """After as many dead workers as there are attempts, the row goes slow and says why."""
    connection = added(database)
    for death in range(POLICY.max_attempts):
        assert take(database, Step.CAPTURE, connection.id, now=NOW + death * LEASE)
    after = NOW + POLICY.max_attempts * LEASE

    assert take(database, Step.CAPTURE, connection.id, now=after) == []

    row = stored(database, connection)
    assert row.error_code == "worker_died"
    assert row.error_advice
    assert row.due_at == after + POLICY.parked_pace
    assert (row.leased_until, row.state) == (None, State.REQUESTED)


def test_parked_row_gets_one_try_at_its_slow_pace(database: Database) -> None:
    """When its time has come a parked row is tried once; if that kills too, it is parked again."""
    connection = added(database, attempts=POLICY.max_attempts)

    assert take(database, Step.CAPTURE, connection.id)
    assert take(database, Step.CAPTURE, connection.id, now=NOW + LEASE) == []
    assert stored(database, connection).due_at == NOW + LEASE + POLICY.parked_pace


def test_recorded_failures_do_not_look_like_deaths(database: Database) -> None:
    """A row with many attempts whose lease was given back properly is claimed as ever."""
    connection = added(database, attempts=99, leased_until=None)

    assert take(database, Step.CAPTURE, connection.id)


def test_each_row_is_claimed_by_one_of_many(database: Database) -> None:
    """Threads that claim the same hundred rows at once share them out without a double."""
    tenant = add_first(database, a_tenant())
    rows = [a_connection(tenant) for _ in range(100)]
    add(database, *rows)
    ids = [row.id for row in rows]

    def claim_all(_: int) -> list[UUID]:
        taken = []
        for start in range(0, 100, 10):
            taken += [c.connection.id for c in take(database, Step.CAPTURE, *ids[start : start + 10])]
        return taken

    with ThreadPoolExecutor(4) as threads:
        claimed = [each for found in threads.map(claim_all, range(4)) for each in found]

    missed = set(ids) - set(claimed)
    assert max(Counter(claimed).values()) == 1
    assert all(take(database, Step.CAPTURE, each) for each in missed)  # passed over while locked, never lost
    with database.read() as session:
        assert set(session.exec(select(Connection.fence))) == {1}


def test_lease_is_renewed(database: Database) -> None:
    """Whoever holds a row holds it for longer."""
    connection = added(database)
    (taken,) = take(database, Step.CAPTURE, connection.id)
    later = NOW + timedelta(minutes=1)

    renew(database, {connection.id: taken.connection.fence}, until=later)

    assert stored(database, connection).leased_until == later


@pytest.mark.parametrize("columns", [{"fence": 2, "leased_until": NOW}, {"fence": 1, "leased_until": None}])
def test_row_of_another_is_not_renewed(database: Database, columns: dict[str, Any]) -> None:
    """A row that was taken over, or whose step has been recorded, is left alone."""
    connection = added(database, **columns)

    renew(database, {connection.id: 1}, until=NOW + timedelta(minutes=1))

    assert stored(database, connection).leased_until == columns["leased_until"]


def test_intent_is_noted_for_the_holder(database: Database) -> None:
    """Whoever holds the row may send a create again, and that is on record before."""
    connection = added(database, state=State.CAPTURED, create_sent_at=LONG_AGO)
    (taken,) = take(database, Step.CREATE, connection.id)

    note_intent(database, taken, NOW + timedelta(seconds=5))

    assert stored(database, connection).create_sent_at == NOW + timedelta(seconds=5)


@pytest.mark.parametrize("lost_by", ["time", "another claim"])
def test_intent_of_who_lost_the_row_is_refused(database: Database, lost_by: str) -> None:
    """A worker that woke up too late sends nothing."""
    connection = added(database, state=State.CAPTURED, create_sent_at=LONG_AGO)
    (taken,) = take(database, Step.CREATE, connection.id)
    if lost_by == "another claim":
        take(database, Step.CREATE, connection.id, now=NOW + LEASE)

    with pytest.raises(ClaimLostError):
        note_intent(database, taken, NOW + LEASE)

    assert stored(database, connection).create_sent_at == LONG_AGO
