"""The queue as a whole: counting what is due, and waking what an outage has parked."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import fakeredis
import pytest
from sqlmodel import col, select

from foundation.database import Database, utc_now
from models import AttemptOutcome, Connection, Lane, State, Step, Tenant, Work
from tests.support.locks import wait_until_blocked
from tests.support.remote import Remote, answers
from tests.support.rows import LONG_AGO, NOW, a_connection, a_tenant, a_work, add, added, all_of, work_of
from worker.policy import RetryPolicy
from worker.queue import schedule
from worker.queue.claims import claim
from worker.queue.record import record
from worker.queue.schedule import due_counts, wake_parked, want_polls_again
from worker.queue.turns import SPACING
from worker.queue.verdict import Claim, Problem, Verdict
from worker.runtime import Runtime
from worker.steps.run import run_step

ON_POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"])
"""For what cannot happen on SQLite: it has one writer at a time, and its processes share one host."""

CODES = ("api_unavailable", "api_token_rejected")
MAX_ATTEMPTS = 3
POLICY = RetryPolicy(MAX_ATTEMPTS, parked_pace=timedelta(minutes=15))
LATER = NOW + POLICY.parked_pace
PARKED: dict[str, Any] = {"due_at": LATER, "attempts": MAX_ATTEMPTS}


def wake(database: Database, *, now: datetime = NOW) -> int:
    with database.write() as session:
        return wake_parked(session, CODES, now=now, min_attempts=MAX_ATTEMPTS)


def parked(database: Database, tenant: Tenant | None = None, **columns: Any) -> Connection:
    """A connection that waits at the slow pace because the API was away."""
    work = PARKED | columns.pop("work", {})
    return added(database, tenant, **{"error_code": "api_unavailable"} | columns, work=work)


def test_due_rows_are_counted_by_step(database: Database) -> None:
    """Rows whose turn has come and the surplus count; leased rows and those for later do not."""
    soon = NOW + timedelta(seconds=1)
    for work in ({}, {"due_at": NOW}, {"turn_at": soon}, {"due_at": soon}, {"due_at": None}):
        added(database, state=State.CAPTURED, work=work)
    poll = added(database, state=State.READY, work={"due_at": soon, "leased_until": soon})
    add(database, a_work(poll, lane=Lane.CHANGES))

    with database.read() as session:
        counts = due_counts(session, now=NOW, at_most=100)

    assert counts == dict.fromkeys(Step, 0) | {Step.CREATE: 3, Step.UPDATE: 1}


def test_counting_is_bounded(database: Database) -> None:
    """However much is due, no more rows are read than asked for."""
    for _ in range(5):
        added(database)

    with database.read() as session:
        assert due_counts(session, now=NOW, at_most=3)[Step.CAPTURE] == 3


def test_parked_row_is_woken(database: Database) -> None:
    """What an outage has parked is due now. Its attempts stay: if it fails again it is parked again."""
    row = parked(database)

    assert wake(database) == 1

    work = work_of(database, row)
    assert (work.due_at, work.turn_at, work.attempts) == (NOW, NOW, MAX_ATTEMPTS)


LEFT: dict[str, dict[str, Any]] = {
    "another problem": {"error_code": "credential_rejected"},
    "a mistake of ours": {"error_code": "internal_error"},
    "dead workers": {"error_code": "worker_died"},
    "no problem": {"error_code": None},
    "still trying": {"work": {"attempts": MAX_ATTEMPTS - 1}},
    "held by a worker": {"work": {"leased_until": LATER}},
    "due already": {"work": {"due_at": LONG_AGO}},
    "nothing to do": {"work": {"due_at": None}},
}


@pytest.mark.parametrize("columns", LEFT.values(), ids=LEFT.keys())
def test_row_that_waits_for_another_reason_is_left(database: Database, columns: dict[str, Any]) -> None:
    """The end of an outage proves only that the API answers."""
    row = parked(database, **columns)
    before = work_of(database, row)

    assert wake(database) == 0

    work = work_of(database, row)
    assert (work.due_at, work.turn_at, work.leased_until) == (
        before.due_at,
        before.turn_at,
        before.leased_until,
    )


def test_waking_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction wakes a bounded number of rows; the next one goes on with the others."""
    monkeypatch.setattr(schedule, "WAKE_AT_ONCE", 3)
    for _ in range(5):
        parked(database)

    assert [wake(database) for _ in range(3)] == [3, 2, 0]


def test_woken_rows_of_a_tenant_take_turns(database: Database) -> None:
    """A tenant with many parked rows does not delay the others after an outage."""
    big, small = a_tenant(), a_tenant()
    add(database, big, small)
    many = [parked(database, big) for _ in range(4)]
    one = parked(database, small)

    wake(database)

    turns = sorted(work_of(database, row).turn_at or LATER for row in many)
    assert turns == [NOW + n * SPACING for n in range(4)]
    assert work_of(database, one).turn_at == NOW
    assert {work_of(database, row).due_at for row in many} == {NOW}


def test_success_of_others_wakes_no_row_that_keeps_failing(database: Database) -> None:
    """A row that fails among rows that succeed is called at its own pace, however many batches there are.

    Nothing but the end of an outage wakes parked rows, and one tenant's failures are no outage.
    """
    bad = added(database, state=State.CAPTURED)
    for _ in range(20):
        added(database, state=State.READY)
    calls: Counter[bool] = Counter()
    now = NOW

    for _ in range(30):
        for step in (Step.CREATE, Step.POLL):
            with database.write() as session:
                lease = timedelta(seconds=10)
                claims = claim(session, step, limit=50, now=now, lease=lease, policy=POLICY).claims
                results = [(each, _outcome(each, bad)) for each in claims]
                record(session, results, now=now)
            for each in claims:
                calls[each.connection_id == bad.id] += 1
        now += timedelta(seconds=1)

    assert calls[True] == MAX_ATTEMPTS
    assert calls[False] == 30 * 20


def _outcome(claimed: Claim, bad: Connection) -> Verdict:
    if claimed.connection_id != bad.id:
        return Verdict("looked at", "ready", wait=timedelta(seconds=1), is_eventful=False)
    is_parked = claimed.attempts >= POLICY.max_attempts
    return Verdict(
        "to retry",
        "away",
        wait=POLICY.parked_pace if is_parked else timedelta(seconds=1),
        problem=Problem("api_unavailable", "no answer", "wait"),
        outcome=AttemptOutcome.TRANSIENT,
    )


@ON_POSTGRESQL
def test_wakers_at_once_do_not_block_each_other(database: Database) -> None:
    """Two workers that see the end of an outage together share the rows."""
    for _ in range(10):
        parked(database)

    with database.write() as first:
        woken = wake_parked(first, CODES, now=NOW, min_attempts=MAX_ATTEMPTS)
        assert wake(database) == 0  # it would wait here

    assert woken == 10


def test_many_wakers_wake_each_row_once(database: Database) -> None:
    """Threads that wake at the same time neither fail nor wake a row twice."""
    for _ in range(50):
        parked(database)
    together = threading.Barrier(4)

    def wake_with_others(_: int) -> int:
        together.wait(10)
        return wake(database)

    with ThreadPoolExecutor(4) as threads:
        woken = list(threads.map(wake_with_others, range(4)))

    assert sum(woken) + wake(database) == 50
    assert {work.due_at for work in all_of(database, Work)} == {NOW}


def test_silent_polls_are_wanted_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the feed each sync is read by itself again: in bounded steps, spread over the time to come."""
    monkeypatch.setattr(schedule, "WAKE_AT_ONCE", 4)
    silent = [added(database, state=State.READY, work={"due_at": None}) for _ in range(10)]
    failed = added(database, state=State.FAILED, work={"due_at": None})
    polled = added(database, state=State.READY, work={"due_at": LATER})
    within = timedelta(minutes=5)

    after, steps = None, 0
    while steps < 10:
        with database.write() as session:
            after = want_polls_again(session, after, now=NOW, within=within)
        if after is None:
            break
        steps += 1

    moments = {work_of(database, row).due_at for row in silent}
    assert steps == 3
    assert all(each is not None and NOW <= each <= NOW + within for each in moments)
    assert len(moments) == 10
    assert work_of(database, polled).due_at == LATER
    assert work_of(database, failed).step is Step.POLL
    with database.read() as session:
        assert set(session.exec(select(Work.turn_at).where(col(Work.turn_at) != col(Work.due_at)))) == set()


@ON_POSTGRESQL
def test_silent_poll_that_is_locked_is_not_missed(database: Database) -> None:
    """Nobody would ever read that sync again: the row is waited for."""
    row = added(database, state=State.READY, work={"due_at": None})

    def want() -> None:
        with database.write() as session:
            want_polls_again(session, None, now=NOW, within=timedelta(minutes=5))

    with ThreadPoolExecutor(1) as threads, database.write() as session:
        session.get_one(Work, (row.id, Lane.LIFECYCLE), with_for_update=True)
        wanting = threads.submit(want)
        wait_until_blocked(database)
        session.commit()
        wanting.result(10)

    assert work_of(database, row).due_at is not None


def test_leased_poll_is_not_wanted_again(database: Database) -> None:
    """A row that a worker holds is due at the end of its lease anyway."""
    row = added(database, state=State.READY, work={"due_at": LATER, "leased_until": LATER})

    with database.write() as session:
        assert want_polls_again(session, None, now=NOW, within=timedelta(minutes=5)) is None

    assert work_of(database, row).due_at == LATER


def test_outage_with_many_rows_ends_in_fair_turns(database: Database) -> None:
    """After an outage of a big tenant and small ones, the small ones are in the first batch."""
    big = a_tenant()
    add(database, big)
    rows = [a_connection(big, error_code="api_unavailable") for _ in range(300)]
    with database.write() as session:
        session.add_all(rows)
        session.flush()
        session.add_all([a_work(row, **PARKED) for row in rows])
    small = {parked(database).id for _ in range(10)}

    wake(database)
    with database.write() as session:
        first = claim(
            session, Step.CAPTURE, limit=20, now=NOW, lease=timedelta(seconds=10), policy=POLICY
        ).claims

    assert small <= {each.connection_id for each in first}
    assert len(first) == 20


def test_only_the_end_of_an_outage_wakes_who_was_parked(
    runtime: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis
) -> None:
    """One tenant's calls always fail: others' successes, batch after batch, do not have them repeated.

    Once the breaker was open for everybody, the success that closes it has them tried again, once.
    """
    bad = leaving(runtime, "sync_bad", attempts=runtime.settings.max_attempts - 1)
    remote.before = answers(503, to="DELETE /v1/syncs/sync_bad")

    def calls_after(batches: int) -> int:
        for _ in range(batches):
            for n in range(5):
                leaving(runtime, f"sync_{n}", attempts=1)  # the second time, its being gone is believed
            run_step(runtime, Step.REMOVE)
        return remote.count("DELETE /v1/syncs/sync_bad")

    first = calls_after(1)
    assert first >= 1
    assert calls_after(5) == first
    assert (work_of(runtime.database, bad).due_at or NOW) > utc_now() + timedelta(minutes=10)

    began_at = time.time() - 60
    redis_server.hset(
        "gangway:api:breaker", mapping={"open_since": began_at, "probe_at": began_at, "probe_s": 2}
    )
    assert calls_after(1) == first  # the probe
    redis_server.hdel("gangway:api:breaker", "closed_at")  # the ramp is over
    assert calls_after(1) == 2 * first
    assert calls_after(5) == 2 * first


def leaving(runtime: Runtime, sync_id: str, **work: Any) -> Connection:
    """A connection that is due to be removed, of a tenant of its own."""
    return added(runtime.database, state=State.REMOVING, remote_sync_id=sync_id, work=work)
