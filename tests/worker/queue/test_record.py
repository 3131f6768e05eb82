"""Recording: what a step found becomes true, unless the row has moved on; each row stands or falls alone."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, select

from foundation.database import Database
from models import Attempt, AttemptOutcome, Connection, Lane, State, Step, Tenant, Transition, Work
from tests.support.rows import LONG_AGO, NOW, a_tenant, a_work, add, added, all_of, stored, work_of
from worker.policy import RetryPolicy
from worker.queue import record as recording
from worker.queue.claims import claim, renew
from worker.queue.desired import apply_desired
from worker.queue.history import write_moves
from worker.queue.record import UNRECORDABLE_WAIT, Onward, Recorded, record
from worker.queue.verdict import Claim, Problem, Verdict
from worker.queue.want import want_work

POLICY = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))
LEASE = timedelta(seconds=10)
LATER = NOW + timedelta(seconds=2)
ONWARD = Onward(Step.CREATE, LEASE)
CAPTURED = Verdict(
    "captured", "credential captured", move=State.CAPTURED, facts={"remote_credential_id": "c9"}
)
QUIET = Verdict("looked at", "still ready", wait=timedelta(minutes=5), is_eventful=False)
AWAY = Problem("api_unavailable", "no answer", "wait")
TRANSIENT = Verdict(
    "to retry: api_unavailable",
    "to be tried again",
    wait=timedelta(seconds=7),
    problem=AWAY,
    outcome=AttemptOutcome.TRANSIENT,
)


def take(database: Database, step: Step) -> list[Claim]:
    with database.write() as session:
        found = claim(session, step, limit=1_000, now=NOW, lease=LEASE, policy=POLICY, task_id="task-1")
    return list(found.claims)


def held(database: Database, step: Step, **columns: Any) -> Claim:
    """A stored connection whose work a worker holds."""
    connection = added(database, **columns)
    if step is Step.UPDATE:
        add(database, a_work(connection, lane=Lane.CHANGES))
    (taken,) = [each for each in take(database, step) if each.connection_id == connection.id]
    return taken


def recorded(database: Database, *results: tuple[Claim, Verdict], onward: Onward | None = None) -> Recorded:
    with database.write() as session:
        return record(session, results, now=LATER, onward=onward)


def connection_of(database: Database, taken: Claim) -> Connection:
    with database.read() as session:
        return session.get_one(Connection, taken.connection_id)


def work_for(database: Database, taken: Claim) -> Work:
    with database.read() as session:
        return session.get_one(Work, taken.key)


def event(database: Database, taken: Claim, *, removed: bool = False, **columns: Any) -> None:
    """What the intake does to the rows while a worker holds them."""
    with database.write() as session:
        tenant = session.get_one(Tenant, taken.tenant_id)
        row = session.get_one(Connection, taken.connection_id)
        if removed:
            tenant.is_removed = True
            tenant.clock = {"presence": "2026-05-04"}
        row.revision += 1
        for name, value in columns.items():
            setattr(row, name, value)
        moves = apply_desired(tenant, row, credential_given="sealed_credential" in columns)
        session.flush()
        write_moves(session, moves)
        want_work(session, [row], now=NOW)


def taken_over(database: Database, taken: Claim) -> None:
    with database.write() as session:
        session.get_one(Work, taken.key).fence += 1


def test_success_moves_the_row_and_frees_it(database: Database) -> None:
    """Facts, move and history are stored together; the next step is due at once, with all its attempts."""
    taken = held(
        database,
        Step.CAPTURE,
        error_code="old",
        error_message="old",
        error_advice="old",
        refused_at=LONG_AGO,
        work={"attempts": 2, "lost_leases": 1, "leased_until": LONG_AGO},
    )

    done = recorded(database, (taken, CAPTURED))

    row, work = connection_of(database, taken), work_for(database, taken)
    assert (row.state, row.remote_credential_id, row.updated_at) == (State.CAPTURED, "c9", LATER)
    assert (row.error_code, row.error_message, row.error_advice, row.refused_at) == (None,) * 4
    assert (work.step, work.due_at, work.turn_at) == (Step.CREATE, LATER, LATER)
    assert (work.leased_until, work.attempts, work.lost_leases) == (None, 0, 0)
    (moved,) = all_of(database, Transition)
    assert (moved.from_state, moved.to_state, moved.task_id) == (State.REQUESTED, State.CAPTURED, "task-1")
    assert (moved.why, moved.attempt, moved.at) == ("credential captured", 3, LATER)
    assert all_of(database, Attempt) == []  # the move tells it
    assert (done.results, done.onward) == ([(taken, CAPTURED)], [])


def test_row_goes_on_under_its_lease(database: Database) -> None:
    """A captured credential's sync is created by the same worker: no message and no claim in between."""
    taken = held(database, Step.CAPTURE, sealed_credential="k.1")
    verdict = Verdict(
        "captured",
        "captured",
        move=State.CAPTURED,
        facts={"remote_credential_id": "c9", "sealed_credential": None},
    )

    (onward,) = recorded(database, (taken, verdict), onward=ONWARD).onward

    work, row = work_for(database, taken), connection_of(database, taken)
    assert (onward.step, onward.state, onward.fence) == (Step.CREATE, State.CAPTURED, taken.fence)
    assert (onward.remote_credential_id, onward.sealed_credential, onward.attempts) == ("c9", None, 1)
    assert onward.earlier_create_at is None
    assert (work.step, work.fence, work.attempts) == (Step.CREATE, taken.fence, 1)
    assert work.leased_until == work.due_at == LATER + LEASE
    assert row.create_sent_at == LATER  # the intent is on record before anything is sent


def test_row_whose_wish_has_changed_does_not_go_on(database: Database) -> None:
    """A worker never creates what is no longer wanted: the next claim reads the row anew."""
    taken = held(database, Step.CAPTURE)
    event(database, taken, overrides={"max_age_days": 3})

    done = recorded(database, (taken, CAPTURED), onward=ONWARD)

    assert done.onward == []
    assert work_for(database, taken).leased_until is None


def test_failure_does_not_go_on(database: Database) -> None:
    """Only a move to the state that asks for the next step lets the worker continue."""
    taken = held(database, Step.CREATE, state=State.CAPTURED)

    assert recorded(database, (taken, TRANSIENT), onward=ONWARD).onward == []
    assert work_for(database, taken).leased_until is None


def test_transient_failure_waits_in_the_row(database: Database) -> None:
    """The row is due by itself after the wait and keeps its count."""
    taken = held(database, Step.CAPTURE, work={"attempts": 1})

    recorded(database, (taken, TRANSIENT))

    row, work = connection_of(database, taken), work_for(database, taken)
    assert (row.state, row.error_code, row.refused_at) == (State.REQUESTED, "api_unavailable", None)
    assert (work.step, work.attempts, work.due_at) == (Step.CAPTURE, 2, LATER + timedelta(seconds=7))
    assert work.leased_until is None
    (attempt,) = all_of(database, Attempt)
    assert (attempt.step, attempt.number, attempt.outcome) == (Step.CAPTURE, 2, AttemptOutcome.TRANSIENT)


def test_uncounted_failure_costs_no_attempt(database: Database) -> None:
    """Waiting as told brings no row nearer to being parked."""
    taken = held(database, Step.CAPTURE, work={"attempts": 1})
    verdict = Verdict("to retry", "told to wait", outcome=AttemptOutcome.TRANSIENT, is_counted=False)

    recorded(database, (taken, verdict))

    assert work_for(database, taken).attempts == 1


@pytest.mark.parametrize("refused_at", [None, LONG_AGO])
def test_refusal_is_told_since_when(database: Database, refused_at: Any) -> None:
    """The first refusal of a row notes its moment, the next ones keep it, and each counts."""
    taken = held(database, Step.CAPTURE, refused_at=refused_at, work={"attempts": 1})
    problem = Problem("api_rejected", "no", "ask")
    refused = Verdict("refused", "no", problem=problem, outcome=AttemptOutcome.TRANSIENT, is_refusal=True)

    recorded(database, (taken, refused))

    assert connection_of(database, taken).refused_at == (refused_at or LATER)
    assert work_for(database, taken).attempts == 2


def test_other_failure_ends_a_refusal(database: Database) -> None:
    """Refusals count when nothing else comes between them."""
    taken = held(database, Step.CAPTURE, refused_at=LONG_AGO)

    recorded(database, (taken, TRANSIENT))

    assert connection_of(database, taken).refused_at is None


def test_quiet_result_touches_the_work_only(database: Database) -> None:
    """A poll that found nothing new leaves no attempt and does not write the connection."""
    taken = held(database, Step.POLL, state=State.READY, updated_at=LONG_AGO)

    done = recorded(database, (taken, QUIET))

    work = work_for(database, taken)
    assert (work.due_at, work.turn_at) == (LATER + timedelta(minutes=5),) * 2
    assert (work.leased_until, work.attempts, work.step) == (None, 0, Step.POLL)
    assert connection_of(database, taken).updated_at == LONG_AGO
    assert all_of(database, Attempt) == []
    assert done.results == [(taken, QUIET)]


def test_quiet_refusal_keeps_its_count(database: Database) -> None:
    """A refusal that goes on is no news, but it counts."""
    taken = held(database, Step.POLL, state=State.DEGRADED, work={"attempts": 4})

    recorded(database, (taken, Verdict("still refused", "no", is_eventful=False, is_refusal=True)))

    assert work_for(database, taken).attempts == 5


def test_feed_will_tell(database: Database) -> None:
    """Where the feed tells of changes, a calm sync is not due by itself."""
    taken = held(database, Step.POLL, state=State.READY)

    recorded(database, (taken, Verdict("looked at", "ready", wait=None, is_eventful=False)))

    work = work_for(database, taken)
    assert (work.due_at, work.turn_at, work.leased_until) == (None, None, None)


def test_failed_connection_with_a_sync_is_watched(database: Database) -> None:
    """A connection that failed recovers when its sync does, so it is looked at slowly."""
    taken = held(database, Step.POLL, state=State.DEGRADED)
    slow = timedelta(minutes=15)

    recorded(database, (taken, Verdict("failed", "refused", move=State.FAILED, wait=slow)))

    work = work_for(database, taken)
    assert (work.step, work.due_at) == (Step.POLL, LATER + slow)


def test_failed_connection_without_a_sync_waits_for_an_event(database: Database) -> None:
    """Nothing can be looked at: only a new credential can help."""
    taken = held(database, Step.CAPTURE)

    recorded(database, (taken, Verdict("failed", "refused", move=State.FAILED, wait=timedelta(minutes=15))))

    assert work_for(database, taken).due_at is None


def test_recovered_connection_says_when_it_was_first_ready(database: Database) -> None:
    """`ready_at` is the first time, however often it is reached."""
    taken = held(database, Step.POLL, state=State.DEGRADED, ready_at=LONG_AGO)
    new = held(database, Step.POLL, state=State.BACKFILLING)
    ready = Verdict("ready", "healthy", move=State.READY)

    recorded(database, (taken, ready), (new, ready))

    assert connection_of(database, taken).ready_at == LONG_AGO
    assert connection_of(database, new).ready_at == LATER


@pytest.mark.parametrize("verdict", [CAPTURED, QUIET, TRANSIENT], ids=["move", "quiet", "failure"])
def test_holder_that_lost_the_row_records_nothing(database: Database, verdict: Verdict) -> None:
    """Once another worker took the row over, its fence keeps the first one's outcome out."""
    taken = held(database, Step.CAPTURE)
    taken_over(database, taken)

    recorded(database, (taken, verdict))

    row, work = connection_of(database, taken), work_for(database, taken)
    assert (row.state, row.error_code, row.remote_credential_id) == (State.REQUESTED, None, None)
    assert work.leased_until == NOW + LEASE
    assert all_of(database, Attempt) == all_of(database, Transition) == []


def test_group_is_recorded_without_the_lost_one(database: Database) -> None:
    """One row that was lost costs its neighbours nothing."""
    lost, kept = held(database, Step.CAPTURE), held(database, Step.CAPTURE)
    taken_over(database, lost)

    done = recorded(database, (lost, CAPTURED), (kept, CAPTURED))

    assert [each for each, _ in done.results] == [kept]


INVALID = Verdict("paused", "impossible", move=State.PAUSED)
"""A move that the lifecycle does not have for a requested connection."""
ODD: dict[str, Verdict] = {
    "invalid move": INVALID,
    "half a character": Verdict("x", "x", facts={"remote_credential_id": "a\ud800b"}),
    "no JSON": Verdict("x", "x", facts={"change_problem": {"a": {1, 2}}}),
    "not null": Verdict("x", "x", facts={"applied_revision": None}),
    "too large": Verdict("x", "x", facts={"applied_revision": 2**70}),
}
ODD_ON_POSTGRESQL: dict[str, Verdict] = {
    "too long": Verdict("x", "x", facts={"remote_credential_id": "x" * 65}),
    "NUL": Verdict("x", "x", facts={"remote_credential_id": "a\x00b"}),
    "NUL in the reason": Verdict("x", "a\x00b", move=State.CAPTURED),
}


@pytest.mark.parametrize(
    ("database_kind", "name"),
    [*product(("sqlite", "postgresql"), ODD), *product(("postgresql",), ODD_ON_POSTGRESQL)],
)
def test_row_that_cannot_be_recorded_costs_no_other_anything(database: Database, name: str) -> None:
    """In a batch of fifty, one bad outcome is tried again later and the others are recorded."""
    for _ in range(50):
        added(database)
    batch = take(database, Step.CAPTURE)
    bad, good = batch[20], [*batch[:20], *batch[21:]]
    verdict = (ODD | ODD_ON_POSTGRESQL)[name]

    done = recorded(database, *((each, verdict if each is bad else CAPTURED) for each in batch))

    assert {connection_of(database, each).state for each in good} == {State.CAPTURED}
    assert {work_for(database, each).step for each in good} == {Step.CREATE}
    assert len(all_of(database, Transition)) == 49
    row, work = connection_of(database, bad), work_for(database, bad)
    assert (row.state, row.error_code, row.remote_credential_id) == (State.REQUESTED, "internal_error", None)
    assert (work.step, work.leased_until, work.due_at) == (Step.CAPTURE, None, LATER + UNRECORDABLE_WAIT)
    (attempt,) = all_of(database, Attempt)
    assert (attempt.connection_id, attempt.outcome) == (bad.connection_id, AttemptOutcome.TRANSIENT)
    assert len(done.results) == 50
    assert [verdict.did for each, verdict in done.results if each is bad] == ["to retry: internal_error"]


def test_rows_beside_a_bad_one_go_on(database: Database) -> None:
    """A bad row does not keep the others of its batch from their next step."""
    bad, good = held(database, Step.CAPTURE), held(database, Step.CAPTURE)

    done = recorded(database, (bad, INVALID), (good, CAPTURED), onward=ONWARD)

    assert [each.connection_id for each in done.onward] == [good.connection_id]


def test_trouble_of_the_database_concerns_the_whole_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection is no row's fault: nothing is recorded, and the leases run out."""
    taken = held(database, Step.CAPTURE)

    def away(_session: Session, _claims: Sequence[Claim]) -> None:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(recording, "_locked", away)
    with pytest.raises(OperationalError):
        recorded(database, (taken, CAPTURED))

    assert work_for(database, taken).leased_until == NOW + LEASE


SAID = {
    "NUL": "a\x00b",
    "half a character": "a\ud800b",
    "endless": "x" * 1_000_000,
    "secret": "bad key sk_test_4eC39HqLyjWDarjtT1zdp7dc",
}


@pytest.mark.parametrize("message", SAID.values(), ids=SAID.keys())
def test_what_others_say_cannot_break_the_record(database: Database, message: str) -> None:
    """Any text of an API can be stored: bounded, readable, and without what looks like a key."""
    taken = held(database, Step.CAPTURE)
    problem = Problem("api_rejected", message, "ask")

    recorded(database, (taken, Verdict("no", "no", problem=problem, outcome=AttemptOutcome.PERMANENT)))

    row = connection_of(database, taken)
    assert row.error_code == "api_rejected"
    assert row.error_message
    assert len(row.error_message) <= 2000
    assert "sk_test" not in row.error_message
    assert all_of(database, Attempt)[0].error_message == row.error_message


def test_refused_change_is_told_beside_the_state(database: Database) -> None:
    """The sync goes on without the change, and the connection keeps what its own work says."""
    taken = held(database, Step.UPDATE, state=State.READY, revision=2, applied_revision=1)
    problem = Problem("api_rejected", "no such collection", "correct it")

    recorded(
        database,
        (taken, Verdict("failed", "no", wait=None, problem=problem, outcome=AttemptOutcome.PERMANENT)),
    )

    row = connection_of(database, taken)
    assert (row.state, row.error_code) == (State.READY, None)
    assert row.change_problem == {
        "code": "api_rejected",
        "message": "no such collection",
        "advice": "correct it",
    }
    assert work_for(database, taken).due_at is None


def test_change_that_is_wanted_during_a_needless_update_is_not_lost(database: Database) -> None:
    """The update found nothing to change; what an event wants meanwhile is sent next."""
    taken = held(database, Step.UPDATE, state=State.READY)
    event(database, taken)

    recorded(database, (taken, Verdict("unchanged", "nothing to change", wait=None, is_eventful=False)))

    work = work_for(database, taken)
    assert (work.step, work.due_at, work.leased_until) == (Step.UPDATE, LATER, None)


def test_needless_update_leaves_nothing(database: Database) -> None:
    """Without any change there is neither an attempt nor further work."""
    taken = held(database, Step.UPDATE, state=State.READY, updated_at=LONG_AGO)

    recorded(database, (taken, Verdict("unchanged", "nothing to change", wait=None, is_eventful=False)))

    assert work_for(database, taken).due_at is None
    assert connection_of(database, taken).updated_at == LONG_AGO
    assert all_of(database, Attempt) == []


def test_deleted_while_capturing(database: Database) -> None:
    """The credential that was captured meanwhile is known, and so can be removed, which is due at once."""
    taken = held(database, Step.CAPTURE, sealed_credential="k.1")
    event(database, taken, removed=True)
    facts = {"remote_credential_id": "c9", "sealed_credential": None}

    recorded(database, (taken, Verdict("captured", "captured", move=State.CAPTURED, facts=facts)))

    row, work = connection_of(database, taken), work_for(database, taken)
    assert (row.state, row.remote_credential_id, row.sealed_credential) == (State.REMOVING, "c9", None)
    assert (work.step, work.due_at, work.leased_until) == (Step.REMOVE, LATER, None)


def test_deleted_while_creating(database: Database) -> None:
    """The sync that was created meanwhile is known, and so can be removed."""
    taken = held(database, Step.CREATE, state=State.CAPTURED)
    event(database, taken, removed=True)

    recorded(
        database,
        (taken, Verdict("created", "created", move=State.BACKFILLING, facts={"remote_sync_id": "s9"})),
    )

    row = connection_of(database, taken)
    assert (row.state, row.remote_sync_id) == (State.REMOVING, "s9")
    assert work_for(database, taken).step is Step.REMOVE


def test_newer_credential_is_captured_next(database: Database) -> None:
    """A credential that arrives during the import of an older one is not forgotten with it."""
    taken = held(database, Step.CAPTURE, sealed_credential="k.old")
    event(database, taken, sealed_credential="k.new")
    facts = {"remote_credential_id": "c9", "sealed_credential": None}

    recorded(database, (taken, Verdict("captured", "captured", move=State.CAPTURED, facts=facts)))

    assert connection_of(database, taken).sealed_credential == "k.new"
    assert work_for(database, taken).step is Step.CAPTURE


@pytest.mark.parametrize("state", [State.BACKFILLING, State.READY, State.DEGRADED])
@pytest.mark.parametrize("is_eventful", [True, False])
def test_new_credential_while_polling(database: Database, state: State, is_eventful: bool) -> None:
    """A poll only looks, so its lease is taken away: what it found about the old credential moves nothing."""
    taken = held(database, Step.POLL, state=state)
    event(database, taken, sealed_credential="k.new")
    move = State.FAILED if is_eventful else None

    recorded(database, (taken, Verdict("no", "no", move=move, wait=None, is_eventful=is_eventful)))

    work = work_for(database, taken)
    assert connection_of(database, taken).state is State.REQUESTED
    assert (work.step, work.due_at, work.fence) == (Step.CAPTURE, NOW, taken.fence + 1)


def test_change_while_polling_is_work_of_its_own(database: Database) -> None:
    """What an event wants meanwhile is due at once; the poll goes on."""
    taken = held(database, Step.POLL, state=State.READY)
    event(database, taken)

    recorded(database, (taken, Verdict("ready", "ready", wait=timedelta(minutes=5), is_eventful=False)))

    assert work_for(database, taken).due_at == LATER + timedelta(minutes=5)
    changes = work_of(database, connection_of(database, taken), Lane.CHANGES)
    assert (changes.step, changes.due_at) == (Step.UPDATE, NOW)


def test_create_that_lacks_the_newest_wish_is_followed_by_an_update(database: Database) -> None:
    """A create that was sent under an older revision is recorded as such, and brought up to date."""
    taken = held(database, Step.CREATE, state=State.CAPTURED, revision=3)
    facts = {"remote_sync_id": "s9", "applied_revision": 2}

    recorded(database, (taken, Verdict("adopted", "adopted", move=State.BACKFILLING, facts=facts)))

    changes = work_of(database, connection_of(database, taken), Lane.CHANGES)
    assert (changes.step, changes.due_at, changes.attempts) == (Step.UPDATE, LATER, 0)


FAILED_BEHIND: dict[str, Any] = {
    "state": State.FAILED,
    "remote_sync_id": "s9",
    "revision": 2,
    "applied_revision": 1,
}


@pytest.mark.parametrize("has_row", [True, False], ids=["whose update found nothing to do", "new"])
def test_change_of_a_failed_connection_is_sent_when_it_recovers(database: Database, has_row: bool) -> None:
    """While it was failed nothing could be changed; the change is not forgotten for that."""
    taken = held(database, Step.POLL, **FAILED_BEHIND)
    if has_row:
        add(database, a_work(connection_of(database, taken), lane=Lane.CHANGES, due_at=None))

    recorded(database, (taken, Verdict("ready", "healthy", move=State.READY)))

    changes = work_of(database, connection_of(database, taken), Lane.CHANGES)
    assert (changes.step, changes.due_at) == (Step.UPDATE, LATER)


def test_change_of_a_failed_connection_waits_for_its_recovery(database: Database) -> None:
    """As long as it stays failed there is nothing that could be changed."""
    taken = held(database, Step.POLL, **FAILED_BEHIND)

    recorded(database, (taken, Verdict("looked at", "x", facts={"health": "error"})))

    assert {work.lane for work in all_of(database, Work)} == {Lane.LIFECYCLE}


RESUMED = Verdict(
    "updated", "changed status", move=State.BACKFILLING, wait=None, facts={"applied_revision": 2}
)


def test_resumed_sync_is_looked_at_at_once(database: Database) -> None:
    """A paused sync is read rarely, or not at all where a feed tells of changes; a resumed one is."""
    taken = held(
        database,
        Step.UPDATE,
        state=State.PAUSED,
        revision=2,
        applied_revision=1,
        work={"due_at": None},
    )

    recorded(database, (taken, RESUMED))

    row = connection_of(database, taken)
    work = work_of(database, row)
    assert row.state is State.BACKFILLING
    assert (work.step, work.due_at, work.turn_at) == (Step.POLL, LATER, LATER)


def test_who_reads_a_sync_while_it_is_resumed_reads_in_vain(database: Database) -> None:
    """The sync that was seen was paused: what that means for the next look is no longer true."""
    taken = held(database, Step.UPDATE, state=State.PAUSED, revision=2, applied_revision=1)
    (reading,) = take(database, Step.POLL)

    recorded(database, (taken, RESUMED))
    recorded(database, (reading, Verdict("looked at", "disabled", wait=None, is_eventful=False)))

    work = work_for(database, reading)
    assert (work.due_at, work.leased_until) == (LATER, None)


def test_update_that_is_under_way_is_not_disturbed(database: Database) -> None:
    """Wanting a change that a worker is sending takes no lease away."""
    taken = held(database, Step.UPDATE, state=State.CAPTURED)
    (creating,) = take(database, Step.CREATE)

    recorded(
        database,
        (creating, Verdict("adopted", "x", move=State.BACKFILLING, facts={"applied_revision": 0})),
    )

    work = work_for(database, taken)
    assert (work.leased_until, work.fence) == (NOW + LEASE, taken.fence)


def test_failure_that_was_overtaken_is_tried_again(database: Database) -> None:
    """A refusal of what is no longer wanted fails nothing: the newer wish is tried at once."""
    taken = held(database, Step.CREATE, state=State.CAPTURED, work={"attempts": 5})
    event(database, taken, overrides={"collection_ids": ["stripe:charge"]})
    refused = Verdict("no", "no", move=State.FAILED, wait=None, outcome=AttemptOutcome.PERMANENT)

    recorded(database, (taken, refused))

    work = work_for(database, taken)
    assert connection_of(database, taken).state is State.CAPTURED
    assert (work.step, work.due_at, work.attempts) == (Step.CREATE, LATER, 0)


def test_signed_up_again_during_the_removal(database: Database) -> None:
    """A removal that is done is done, whatever was wished meanwhile: the new life starts from there."""
    taken = held(database, Step.REMOVE, state=State.REMOVING)
    event(database, taken, sealed_credential="k.new")

    recorded(database, (taken, Verdict("removed", "removed", move=State.REMOVED, wait=None)))

    row, work = connection_of(database, taken), work_for(database, taken)
    assert (row.state, row.sealed_credential) == (State.REQUESTED, "k.new")
    assert (work.step, work.due_at) == (Step.CAPTURE, LATER)
    moves = [(each.from_state, each.to_state) for each in all_of(database, Transition)]
    assert set(moves) == {
        (State.REMOVING, State.REMOVED),
        (State.REMOVED, State.AWAITING_CREDENTIAL),
        (State.AWAITING_CREDENTIAL, State.REQUESTED),
    }


def test_removed_for_good(database: Database) -> None:
    """Who does not come back stays removed, and nothing is due."""
    tenant = a_tenant(is_removed=True)
    add(database, tenant)
    connection = added(database, tenant, state=State.REMOVING)
    (taken,) = take(database, Step.REMOVE)

    recorded(database, (taken, Verdict("removed", "removed", move=State.REMOVED, wait=None)))

    assert stored(database, connection).state is State.REMOVED
    assert work_of(database, connection).due_at is None


def test_recording_and_renewing_never_block_each_other(database: Database) -> None:
    """Both lock rows in the same order: a hundred times at once, and no deadlock."""
    for n in range(40):
        added(database, state=State.READY, id=UUID(int=n + 1))
    claims = sorted(take(database, Step.POLL), key=lambda each: each.connection_id, reverse=True)
    # eventful and quiet ones in turns, in the opposite order of their ids
    noted = Verdict("looked at", "x", facts={"health": "healthy"}, wait=timedelta(0))
    results = [(each, noted if n % 2 else QUIET) for n, each in enumerate(claims)]
    fences = {each.key: each.fence for each in claims}
    done = threading.Event()

    def renew_all() -> None:
        while not done.is_set():
            renew(database, fences, lease=LEASE)

    with ThreadPoolExecutor(2) as threads:
        renewing = [threads.submit(renew_all) for _ in range(2)]
        try:
            for _ in range(30):
                with database.write() as session:
                    record(session, results, now=LATER)
                    for work in session.exec(select(Work)):
                        work.leased_until = LATER
        finally:
            done.set()
        for each in renewing:
            each.result(30)
