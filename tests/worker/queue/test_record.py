"""Recording: what a step found becomes true, unless the row has moved on."""

from datetime import timedelta
from typing import Any

import pytest
from worker.rows.claims import claim
from worker.rows.record import HINT_GRACE, RETRY_GRACE, Recorded, record
from worker.rows.wishes import heed
from worker.steps.verdict import Claim, Problem, RetryPolicy, Verdict

from foundation.database import Database
from models import Attempt, AttemptOutcome, Connection, State, Step, Tenant, Transition
from tests.support.rows import NOW, a_tenant, add, added, all_of, stored

POLICY = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))
LATER = NOW + timedelta(seconds=2)
TRANSIENT = Verdict(
    why="to be tried again",
    wait=timedelta(seconds=7),
    problem=Problem("api_unavailable", "no answer", "wait"),
    outcome=AttemptOutcome.TRANSIENT,
)


def held(database: Database, step: Step, **columns: Any) -> Claim:
    """A stored connection that a worker holds."""
    tenant = a_tenant()
    add(database, tenant)
    connection = added(database, tenant, **columns)
    with database.write() as session:
        (taken,) = claim(
            session,
            [connection.id],
            step,
            now=NOW,
            lease=timedelta(seconds=10),
            policy=POLICY,
            task_id="task-1",
        )
    return taken


def recorded(database: Database, step: Step, taken: Claim, verdict: Verdict) -> list[Recorded]:
    with database.write() as session:
        return record(session, step, [(taken, verdict)], now=LATER)


def event(database: Database, taken: Claim, *, removed: bool = False, **columns: Any) -> None:
    """What the intake does to the row while a worker holds it."""
    with database.write() as session:
        tenant = session.get_one(Tenant, taken.tenant.id)
        row = session.get_one(Connection, taken.connection.id)
        if removed:
            tenant.is_removed = True
            tenant.clock = {"presence": "2026-05-04"}
        row.revision += 1
        for name, value in columns.items():
            setattr(row, name, value)
        session.add_all(heed(tenant, row, now=NOW, credential_given="sealed_credential" in columns))


def test_success_moves_the_row_and_frees_it(database: Database) -> None:
    """Facts, move and history are stored together; the next step is due and known to be announced."""
    taken = held(database, Step.CAPTURE, error_code="old", error_message="old", error_advice="old")
    verdict = Verdict("credential captured", move=State.CAPTURED, facts={"remote_credential_id": "c9"})

    (done,) = recorded(database, Step.CAPTURE, taken, verdict)

    row = stored(database, taken.connection)
    assert (row.state, row.remote_credential_id) == (State.CAPTURED, "c9")
    assert (row.leased_until, row.attempts, row.due_at) == (None, 0, LATER)
    assert (row.error_code, row.error_message, row.error_advice) == (None, None, None)
    assert row.hinted_until == LATER + HINT_GRACE
    assert done.due_step is Step.CREATE
    (moved,) = all_of(database, Transition)
    assert (moved.from_state, moved.to_state, moved.task_id) == (State.REQUESTED, State.CAPTURED, "task-1")
    (attempt,) = all_of(database, Attempt)
    assert (attempt.step, attempt.number, attempt.outcome) == (Step.CAPTURE, 1, AttemptOutcome.SUCCEEDED)


def test_transient_failure_waits_in_the_row(database: Database) -> None:
    """The row is due by itself after the wait, keeps its count, and leaves the queue's retry some room."""
    taken = held(database, Step.CAPTURE, attempts=1)

    (done,) = recorded(database, Step.CAPTURE, taken, TRANSIENT)

    row = stored(database, taken.connection)
    due_at = LATER + timedelta(seconds=7)
    assert (row.state, row.attempts, row.due_at) == (State.REQUESTED, 2, due_at)
    assert row.hinted_until == due_at + RETRY_GRACE
    assert row.error_code == "api_unavailable"
    assert row.leased_until is None
    assert done.due_step is None


def test_uncounted_failure_costs_no_attempt(database: Database) -> None:
    """Waiting as told brings no row nearer to being parked."""
    taken = held(database, Step.CAPTURE, attempts=1)
    verdict = Verdict("told to wait", outcome=AttemptOutcome.TRANSIENT, is_counted=False)

    recorded(database, Step.CAPTURE, taken, verdict)

    assert stored(database, taken.connection).attempts == 1


def test_uneventful_success_leaves_no_attempt(database: Database) -> None:
    """A poll that found nothing new is not worth a row."""
    taken = held(database, Step.POLL, state=State.READY)

    recorded(database, Step.POLL, taken, Verdict("still ready", is_eventful=False))

    assert all_of(database, Attempt) == []


def test_nothing_due_until_an_event(database: Database) -> None:
    """A failed connection is not due: only a person or a new credential can help."""
    taken = held(database, Step.CAPTURE)

    recorded(database, Step.CAPTURE, taken, Verdict("rejected", move=State.FAILED, wait=None))

    assert stored(database, taken.connection).due_at is None


def test_holder_that_lost_the_row_records_nothing(database: Database) -> None:
    """Once another worker took the row over, its fence keeps the first one's outcome out."""
    taken = held(database, Step.CAPTURE)
    with database.write() as session:
        session.get_one(Connection, taken.connection.id).fence += 1

    done = recorded(database, Step.CAPTURE, taken, Verdict("captured", move=State.CAPTURED))

    assert done == []
    assert stored(database, taken.connection).state is State.REQUESTED
    assert all_of(database, Attempt) == []


def test_group_is_recorded_without_the_lost_one(database: Database) -> None:
    """One row that was lost costs its neighbours nothing."""
    lost, kept = held(database, Step.CAPTURE), held(database, Step.CAPTURE)
    with database.write() as session:
        session.get_one(Connection, lost.connection.id).fence += 1
    verdict = Verdict("captured", move=State.CAPTURED)

    with database.write() as session:
        done = record(session, Step.CAPTURE, [(lost, verdict), (kept, verdict)], now=LATER)

    assert [each.connection.id for each in done] == [kept.connection.id]


ODD = {
    "NUL": "a\x00b",
    "half a character": "a\ud800b",
    "endless": "x" * 1_000_000,
    "secret": "bad key sk_test_4eC39HqLyjWDarjtT1zdp7dc",
}


@pytest.mark.parametrize("message", ODD.values(), ids=ODD.keys())
def test_what_others_say_cannot_break_the_record(database: Database, message: str) -> None:
    """Any text of an API can be stored: bounded, readable, and without what looks like a key."""
    taken = held(database, Step.CAPTURE)
    verdict = Verdict("no", problem=Problem("api_rejected", message, "ask"), outcome=AttemptOutcome.PERMANENT)

    recorded(database, Step.CAPTURE, taken, verdict)

    said = stored(database, taken.connection).error_message
    assert said
    assert len(said) <= 2000
    assert "sk_test" not in said
    assert all_of(database, Attempt)[0].error_message == said


def test_deleted_while_capturing(database: Database) -> None:
    """The credential that was captured meanwhile is known, and so can be removed, which is due at once."""
    taken = held(database, Step.CAPTURE, sealed_credential="k.1")
    event(database, taken, removed=True)
    facts = {"remote_credential_id": "c9", "sealed_credential": None}

    (done,) = recorded(database, Step.CAPTURE, taken, Verdict("captured", move=State.CAPTURED, facts=facts))

    row = stored(database, taken.connection)
    assert (row.state, row.remote_credential_id, row.sealed_credential) == (State.REMOVING, "c9", None)
    assert done.due_step is Step.REMOVE


def test_deleted_while_creating(database: Database) -> None:
    """The sync that was created meanwhile is known, and so can be removed."""
    taken = held(database, Step.CREATE, state=State.CAPTURED)
    event(database, taken, removed=True)
    facts = {"remote_sync_id": "s9", "applied_revision": 1}

    (done,) = recorded(database, Step.CREATE, taken, Verdict("created", move=State.BACKFILLING, facts=facts))

    assert stored(database, taken.connection).remote_sync_id == "s9"
    assert done.due_step is Step.REMOVE


def test_new_credential_while_capturing(database: Database) -> None:
    """The newer secret is not erased with the older one, and is captured next."""
    taken = held(database, Step.CAPTURE, sealed_credential="k.old")
    event(database, taken, sealed_credential="k.new")
    facts = {"remote_credential_id": "c9", "sealed_credential": None}

    (done,) = recorded(database, Step.CAPTURE, taken, Verdict("captured", move=State.CAPTURED, facts=facts))

    assert stored(database, taken.connection).sealed_credential == "k.new"
    assert done.due_step is Step.CAPTURE


@pytest.mark.parametrize("state", [State.BACKFILLING, State.READY, State.DEGRADED])
def test_new_credential_while_polling(database: Database, state: State) -> None:
    """The verdict about the old credential moves nothing any more."""
    taken = held(database, Step.POLL, state=state)
    event(database, taken, sealed_credential="k.new")
    problem = Problem("credential_rejected", "401", "ask")

    (done,) = recorded(database, Step.POLL, taken, Verdict("no", State.FAILED, None, problem=problem))

    assert stored(database, taken.connection).state is State.REQUESTED
    assert done.due_step is Step.CAPTURE


def test_change_while_polling_is_applied_next(database: Database) -> None:
    """What an event wants meanwhile is sent as soon as the poll has ended."""
    taken = held(database, Step.POLL, state=State.READY)
    event(database, taken)

    (done,) = recorded(database, Step.POLL, taken, Verdict("ready", wait=timedelta(minutes=5)))

    assert done.due_step is Step.UPDATE


def test_failure_that_was_overtaken_is_tried_again(database: Database) -> None:
    """A refusal of what is no longer wanted fails nothing: the newer wish is tried at once."""
    taken = held(database, Step.CREATE, state=State.CAPTURED)
    event(database, taken, overrides={"collection_ids": ["stripe:charge"]})
    refused = Verdict("no", State.FAILED, None, outcome=AttemptOutcome.PERMANENT)

    (done,) = recorded(database, Step.CREATE, taken, refused)

    assert stored(database, taken.connection).state is State.CAPTURED
    assert done.due_step is Step.CREATE


def test_signed_up_again_before_the_removal(database: Database) -> None:
    """Who comes back with a credential while the old life is being removed goes on from there with it."""
    taken = held(database, Step.REMOVE, state=State.REMOVING, sealed_credential="k.new")

    (done,) = recorded(database, Step.REMOVE, taken, Verdict("removed", State.REMOVED, None))

    row = stored(database, taken.connection)
    assert (row.state, row.sealed_credential) == (State.REQUESTED, "k.new")
    assert row.due_at == LATER
    assert done.due_step is Step.CAPTURE


def test_signed_up_again_during_the_removal(database: Database) -> None:
    """The same when the event arrives while the removal is under way."""
    taken = held(database, Step.REMOVE, state=State.REMOVING)
    event(database, taken, sealed_credential="k.new")

    (done,) = recorded(database, Step.REMOVE, taken, Verdict("removed", State.REMOVED, None))

    assert done.due_step is Step.REMOVE
    assert stored(database, taken.connection).sealed_credential == "k.new"


def test_removed_for_good(database: Database) -> None:
    """Who does not come back stays removed, and nothing is due."""
    taken = held(database, Step.REMOVE, state=State.REMOVING)
    with database.write() as session:
        session.get_one(Tenant, taken.tenant.id).is_removed = True

    (done,) = recorded(database, Step.REMOVE, taken, Verdict("removed", State.REMOVED, None))

    row = stored(database, taken.connection)
    assert (row.state, row.due_at, done.due_step) == (State.REMOVED, None, None)
