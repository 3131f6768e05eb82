"""Claiming: of many that ask for the next rows, one gets each, for as long as its lease holds."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from sqlalchemy import text
from sqlmodel import select

from foundation.database import Database, utc_now
from models import Connection, Lane, State, Step, Work
from models.lifecycle import WITH_SYNC
from tests.support.locks import wait_until_blocked
from tests.support.rows import (
    LONG_AGO,
    NOW,
    a_connection,
    a_tenant,
    a_work,
    add,
    added,
    stored,
    work_of,
)
from worker.policy import RetryPolicy
from worker.queue.claims import (
    Batch,
    ClaimLostError,
    claim,
    end_polls,
    note_intent,
    renew,
    take_over_polls,
    watched_by_sync,
)
from worker.queue.verdict import Claim

ON_POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"])
"""For what cannot happen on SQLite: it has one writer at a time, and its processes share one host."""

LEASE = timedelta(seconds=10)
POLICY = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))
AN_HOUR = timedelta(hours=1)


def batch(database: Database, step: Step, **how: Any) -> Batch:
    defaults: dict[str, Any] = {
        "limit": 100,
        "now": NOW,
        "lease": LEASE,
        "policy": POLICY,
        "task_id": "task-1",
    }
    with database.write() as session:
        return claim(session, step, **defaults | how)


def take(database: Database, step: Step, **how: Any) -> list[Claim]:
    return list(batch(database, step, **how).claims)


def test_due_row_is_claimed(database: Database) -> None:
    """The claimer gets the row with its connection and tenant; the row is due again when the lease ends."""
    tenant = a_tenant(name="Choam")
    add(database, tenant)
    connection = added(
        database,
        tenant,
        sealed_credential="k.1",
        overrides={"max_age_days": 3},
        clock={"credential": "2026"},
        work={"attempts": 1},
    )

    (taken,) = take(database, Step.CAPTURE)

    assert (taken.connection_id, taken.tenant_name, taken.external_id) == (
        connection.id,
        "Choam",
        tenant.external_id,
    )
    assert (taken.state, taken.sealed_credential, taken.overrides) == (
        State.REQUESTED,
        "k.1",
        {"max_age_days": 3},
    )
    assert taken.has_given_credential
    assert (taken.step, taken.lane, taken.fence, taken.attempts, taken.task_id, taken.started_at) == (
        Step.CAPTURE,
        Lane.LIFECYCLE,
        1,
        2,
        "task-1",
        NOW,
    )
    work = work_of(database, connection)
    assert work.leased_until == work.due_at == work.turn_at == NOW + LEASE
    assert (work.fence, work.attempts, work.lost_leases) == (1, 2, 0)


@pytest.mark.parametrize("step", Step)
def test_only_work_for_the_step_is_claimed(database: Database, step: Step) -> None:
    """A task takes the rows that ask for its step, in any state, and no other."""
    rows = [added(database, state=state, revision=2, applied_revision=1) for state in State]
    changes = [a_work(row, lane=Lane.CHANGES) for row in rows if row.state in WITH_SYNC]
    add(database, *changes)

    taken = {each.connection_id for each in take(database, step)}

    asking = {row.id for row in rows if row.next_step is step}
    if step is Step.UPDATE:
        asking = {work.connection_id for work in changes}
    assert taken == asking


def test_lanes_are_claimed_independently(database: Database) -> None:
    """A connection may be looked at and brought up to date at the same time, each under its own fence."""
    connection = added(database, state=State.READY, revision=2, applied_revision=1)
    add(database, a_work(connection, lane=Lane.CHANGES, fence=8))

    (poll,), (update,) = take(database, Step.POLL), take(database, Step.UPDATE)

    assert (poll.key, poll.fence) == ((connection.id, Lane.LIFECYCLE), 1)
    assert (update.key, update.fence) == ((connection.id, Lane.CHANGES), 9)


NOT_FREE: dict[str, dict[str, Any]] = {
    "not due": {"due_at": NOW + timedelta(seconds=1)},
    "never due": {"due_at": None},
}


@pytest.mark.parametrize("work", NOT_FREE.values(), ids=NOT_FREE.keys())
def test_row_that_is_not_due_is_left(database: Database, work: dict[str, Any]) -> None:
    """A row is taken only when it is due."""
    connection = added(database, work=work)

    assert take(database, Step.CAPTURE) == []
    assert work_of(database, connection).fence == 0


def test_second_claim_finds_nothing(database: Database) -> None:
    """A doubled message costs nothing: the row is already held."""
    added(database)
    take(database, Step.CAPTURE)

    assert take(database, Step.CAPTURE) == []
    assert take(database, Step.CAPTURE, now=NOW + LEASE - timedelta(microseconds=1)) == []


def test_row_is_free_again_once_its_lease_ran_out(database: Database) -> None:
    """The rows of a killed worker are taken over, under a new fence, and the death is counted."""
    connection = added(database)
    take(database, Step.CAPTURE)

    (second,) = take(database, Step.CAPTURE, now=NOW + LEASE)

    assert (second.fence, second.attempts) == (2, 2)
    assert work_of(database, connection).lost_leases == 1


def test_limit_is_kept_and_the_oldest_turn_comes_first(database: Database) -> None:
    """A batch holds no more than asked for; a full one says so."""
    rows = [added(database, work={"due_at": NOW - timedelta(seconds=n)}) for n in range(5)]

    first = batch(database, Step.CAPTURE, limit=3)
    second = batch(database, Step.CAPTURE, limit=3)

    assert {c.connection_id for c in first.claims} == {row.id for row in rows[2:]}
    assert {c.connection_id for c in second.claims} == {row.id for row in rows[:2]}
    assert (first.is_full, second.is_full) == (True, False)


def test_surplus_fills_what_capacity_is_left(database: Database) -> None:
    """Rows whose turn has come are first; then due rows whose turn is still to come; never another."""
    later = NOW + timedelta(hours=1)
    surplus = [added(database, work={"turn_at": NOW + timedelta(seconds=n)}) for n in (1, 2, 3)]
    regular = added(database, work={"due_at": NOW})
    added(database, work={"due_at": later, "turn_at": later + timedelta(seconds=1)})

    first = take(database, Step.CAPTURE, limit=2)
    second = take(database, Step.CAPTURE, limit=10)

    assert {c.connection_id for c in first} == {regular.id, surplus[0].id}
    assert {c.connection_id for c in second} == {surplus[1].id, surplus[2].id}


def test_create_notes_its_intent_with_the_claim(database: Database) -> None:
    """Before anything is sent it is on record that a create may be; the first try knows of none before."""
    connection = added(database, state=State.CAPTURED)

    (first,) = take(database, Step.CREATE)
    (second,) = take(database, Step.CREATE, now=NOW + LEASE)

    assert first.earlier_create_at is None
    assert second.earlier_create_at == NOW
    assert stored(database, connection).create_sent_at == NOW


@pytest.mark.parametrize("step", [Step.CAPTURE, Step.POLL, Step.REMOVE])
def test_other_steps_note_no_create(database: Database, step: Step) -> None:
    """Only a create is uncertain."""
    state = {Step.CAPTURE: State.REQUESTED, Step.REMOVE: State.REMOVING}.get(step, State.READY)
    connection = added(database, state=state)

    assert take(database, step)
    assert stored(database, connection).create_sent_at is None


def test_row_that_kills_its_workers_is_parked(database: Database) -> None:
    """After as many leases without an outcome as there are attempts, the row goes slow and says why."""
    connection = added(database)
    for death in range(POLICY.max_attempts):
        assert take(database, Step.CAPTURE, now=NOW + death * LEASE)
    after = NOW + POLICY.max_attempts * LEASE

    assert take(database, Step.CAPTURE, now=after) == []

    row, work = stored(database, connection), work_of(database, connection)
    assert (row.error_code, row.state) == ("worker_died", State.REQUESTED)
    assert row.error_advice
    assert work.due_at == work.turn_at == after + POLICY.parked_pace
    assert work.leased_until is None


def test_parked_row_costs_its_batch_nothing(database: Database) -> None:
    """The other rows of the batch are claimed as ever, and a full batch still says that it was full."""
    deadly = added(database, work={"leased_until": LONG_AGO, "lost_leases": POLICY.max_attempts - 1})
    well = added(database)

    found = batch(database, Step.CAPTURE, limit=2)

    assert [c.connection_id for c in found.claims] == [well.id]
    assert found.is_full
    assert stored(database, deadly).error_code == "worker_died"


def test_parked_row_is_tried_again_at_its_slow_pace(database: Database) -> None:
    """When its time has come it may be claimed again."""
    connection = added(database, work={"leased_until": LONG_AGO, "lost_leases": POLICY.max_attempts - 1})
    assert take(database, Step.CAPTURE) == []

    (taken,) = take(database, Step.CAPTURE, now=NOW + POLICY.parked_pace)

    assert taken.connection_id == connection.id


def test_recorded_failures_do_not_look_like_deaths(database: Database) -> None:
    """A row with many attempts whose leases were given back properly is claimed as ever."""
    added(database, work={"attempts": 99, "leased_until": None})

    assert take(database, Step.CAPTURE)


@pytest.mark.parametrize("step", [Step.CAPTURE, Step.CREATE])
def test_each_row_is_claimed_by_one_of_many(database: Database, step: Step) -> None:
    """Threads that claim the same two hundred rows at once share them out without a double."""
    tenant = a_tenant()
    state = State.REQUESTED if step is Step.CAPTURE else State.CAPTURED
    rows = [a_connection(tenant, state=state) for _ in range(200)]
    add(database, tenant, *rows, *(a_work(row) for row in rows))
    together = threading.Barrier(4)

    def claim_all(_: int) -> list[UUID]:
        together.wait(10)
        taken: list[UUID] = []
        while claims := take(database, step, limit=10):
            taken += [c.connection_id for c in claims]
        return taken

    with ThreadPoolExecutor(4) as threads:
        claimed = [each for found in threads.map(claim_all, range(4)) for each in found]

    claimed += [c.connection_id for c in take(database, step, limit=200)]  # passed over while locked
    assert Counter(claimed) == Counter({row.id: 1 for row in rows})
    with database.read() as session:
        assert set(session.exec(select(Work.fence))) == {1}


@pytest.fixture
def held_by_another(database: Database) -> Iterator[Connection]:
    """A captured connection that another transaction has locked, as the intake does."""
    connection = added(database, state=State.CAPTURED)
    with database.write() as session:
        session.exec(select(Connection).where(Connection.id == connection.id).with_for_update()).one()
        yield connection


def impatient(database: Database, step: Step, **how: Any) -> list[Claim]:
    """Claim, but wait for no lock: others lock connections before their work, and could wait for us."""
    with database.write() as session:
        session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        defaults: dict[str, Any] = {"limit": 10, "now": NOW, "lease": LEASE, "policy": POLICY}
        return list(claim(session, step, **defaults | how).claims)


@ON_POSTGRESQL
def test_create_waits_for_no_event(database: Database, held_by_another: Connection) -> None:
    """A connection that an event is changing is left for the next claim; the others are claimed."""
    other = added(database, state=State.CAPTURED)

    taken = impatient(database, Step.CREATE)

    assert [c.connection_id for c in taken] == [other.id]
    assert work_of(database, held_by_another).fence == 0


@ON_POSTGRESQL
def test_parking_waits_for_no_event(database: Database, held_by_another: Connection) -> None:
    """While an event is changing its connection, a deadly row is neither given out nor waited for."""
    with database.write() as session:
        work = session.get_one(Work, (held_by_another.id, Lane.LIFECYCLE))
        work.step, work.leased_until, work.lost_leases = Step.CAPTURE, LONG_AGO, 99

    assert impatient(database, Step.CAPTURE) == []
    assert work_of(database, held_by_another).due_at == NOW + LEASE


def test_lease_is_renewed(database: Database) -> None:
    """Whoever holds a row holds it for longer, and it is not due before."""
    connection = added(database)
    with database.write() as session:
        now = database.now(session)
    (taken,) = take(database, Step.CAPTURE, now=now)

    renew(database, {taken.key: taken.fence}, lease=timedelta(minutes=1))

    work = work_of(database, connection)
    assert work.leased_until is not None
    assert work.leased_until >= now + timedelta(minutes=1)
    assert work.due_at == work.turn_at == work.leased_until


OF_ANOTHER: tuple[dict[str, Any], ...] = (
    {"fence": 2, "leased_until": NOW},
    {"fence": 1, "leased_until": None},
)


@pytest.mark.parametrize("work", OF_ANOTHER)
def test_row_of_another_is_not_renewed(database: Database, work: dict[str, Any]) -> None:
    """A row that was taken over, or whose step has been recorded, is left alone."""
    connection = added(database, work=work)

    renew(database, {(connection.id, Lane.LIFECYCLE): 1}, lease=timedelta(minutes=1))

    assert work_of(database, connection).leased_until == work["leased_until"]


def test_only_the_lane_that_is_held_is_renewed(database: Database) -> None:
    """The other work of the same connection has its own lease, whatever its fence."""
    connection = added(database, state=State.READY, work={"fence": 1, "leased_until": LONG_AGO})
    add(database, a_work(connection, lane=Lane.CHANGES, fence=1, leased_until=LONG_AGO))

    renew(database, {(connection.id, Lane.CHANGES): 1}, lease=LEASE)

    assert work_of(database, connection).leased_until == LONG_AGO
    assert work_of(database, connection, Lane.CHANGES).leased_until != LONG_AGO


def held_create(database: Database) -> tuple[Connection, Claim]:
    connection = added(database, state=State.CAPTURED, create_sent_at=LONG_AGO)
    with database.write() as session:
        now = database.now(session)
    (taken,) = take(database, Step.CREATE, now=now)
    return connection, taken


def test_intent_is_noted_for_the_holder(database: Database) -> None:
    """Whoever holds the row may send a create again, and that is on record before."""
    connection, taken = held_create(database)

    note_intent(database, taken)

    sent_at = stored(database, connection).create_sent_at
    assert sent_at is not None
    assert sent_at >= taken.started_at


@pytest.mark.parametrize("lost_by", ["time", "another claim"])
def test_intent_of_who_lost_the_row_is_refused(database: Database, lost_by: str) -> None:
    """A worker that woke up too late sends nothing."""
    connection, taken = held_create(database)
    with database.write() as session:
        work = session.get_one(Work, (connection.id, Lane.LIFECYCLE))
        if lost_by == "time":
            work.leased_until = database.now(session)
        else:
            work.fence += 1

    with pytest.raises(ClaimLostError):
        note_intent(database, taken)

    assert stored(database, connection).create_sent_at == LONG_AGO


@ON_POSTGRESQL
@pytest.mark.parametrize("shift", [AN_HOUR, -AN_HOUR], ids=["fast", "slow"])
def test_clock_of_a_host_takes_no_lease_away(database: Database, shift: timedelta) -> None:
    """Leases live by the database's clock: a host whose clock is an hour off steals and loses nothing."""
    connection = added(database)

    def claim_by_the_clock() -> list[Claim]:
        with database.write() as session:
            now = database.now(session)
            return list(claim(session, Step.CAPTURE, limit=1, now=now, lease=LEASE, policy=POLICY).claims)

    (taken,) = claim_by_the_clock()
    with time_machine.travel(utc_now() + shift):
        assert claim_by_the_clock() == []
        renew(database, {taken.key: taken.fence}, lease=LEASE)

    renewed = work_of(database, connection).leased_until
    assert renewed is not None
    assert abs(renewed - (utc_now() + LEASE)) < timedelta(minutes=1)


def test_watched_connections_are_found_by_sync(database: Database) -> None:
    """Those whose next step is a poll, with who is reading them now; nothing is claimed."""
    idle, read = (
        added(database, state=State.READY),
        added(database, state=State.READY, work={"leased_until": NOW + LEASE, "fence": 4}),
    )
    leaving = added(database, state=State.REMOVING, remote_sync_id="sync_leaving")
    syncs = [str(idle.remote_sync_id), str(read.remote_sync_id), "sync_leaving", "sync_of_nobody"]

    with database.read() as session:
        found = watched_by_sync(session, syncs, now=NOW)

    assert {each.claim.connection_id: each.is_being_read for each in found} == {idle.id: False, read.id: True}
    assert work_of(database, leaving).fence == work_of(database, idle).fence == 0


def test_feed_takes_polls_over(database: Database) -> None:
    """What the feed tells is newer than what a reader will find: the reader's fence is raised."""
    connection = added(database, state=State.READY, work={"leased_until": NOW + LEASE, "fence": 4})
    creating = added(database, state=State.CAPTURED)

    with database.write() as session:
        (taken,) = take_over_polls(
            session, [connection.id, creating.id], now=NOW, lease=LEASE, task_id="task-2"
        )

    assert (taken.connection_id, taken.fence, taken.task_id) == (connection.id, 5, "task-2")
    assert work_of(database, creating).fence == 0


@ON_POSTGRESQL
def test_feed_locks_connections_before_their_work(database: Database) -> None:
    """The same order as the intake: while an event holds the connection, its work stays free."""
    connection = added(database, state=State.READY)

    def take_over() -> None:
        with database.write() as session:
            take_over_polls(session, [connection.id], now=NOW, lease=LEASE, task_id=None)

    with ThreadPoolExecutor(1) as threads, database.write() as session:
        session.exec(select(Connection).where(Connection.id == connection.id).with_for_update()).one()
        taking = threads.submit(take_over)
        wait_until_blocked(database)
        session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        session.get_one(Work, (connection.id, Lane.LIFECYCLE), with_for_update=True)
        session.commit()
        taking.result(10)

    assert work_of(database, connection).fence == 1


def test_feed_ends_polls(database: Database) -> None:
    """The feed tells of these syncs' changes: they are read by themselves no more, and others still are."""
    told, other = added(database, state=State.READY), added(database, state=State.READY)
    create = added(database, state=State.CAPTURED)

    with database.write() as session:
        end_polls(session, [told.id, create.id])

    assert (work_of(database, told).due_at, work_of(database, told).turn_at) == (None, None)
    assert work_of(database, other).due_at == work_of(database, create).due_at == LONG_AGO


def test_feed_leaves_a_leased_poll_alone(database: Database) -> None:
    """Who reads the sync says when to look next; if that worker dies, the end of its lease does."""
    until = NOW + LEASE
    row = added(database, state=State.READY, work={"due_at": until, "leased_until": until})

    with database.write() as session:
        end_polls(session, [row.id])

    assert work_of(database, row).due_at == until


@ON_POSTGRESQL
def test_feed_waits_for_nobody_to_end_a_poll(database: Database) -> None:
    """A row that somebody holds is passed by, and the others are not."""
    locked, free = added(database, state=State.READY), added(database, state=State.READY)

    with database.write() as session:
        session.get_one(Work, (locked.id, Lane.LIFECYCLE), with_for_update=True)
        with database.write() as feed:
            feed.execute(text("SET LOCAL lock_timeout = '50ms'"))
            end_polls(feed, [locked.id, free.id])

    assert work_of(database, locked).due_at == LONG_AGO
    assert work_of(database, free).due_at is None
