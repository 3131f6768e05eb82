"""The sweep: wakes workers for what is due, as many as are of use, and only one sweep at a time."""

from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from foundation.queue import Role
from models import ChangeCursor, Lane, State, Step
from tests.support.rows import LONG_AGO, a_connection, a_tenant, a_work, add, added, work_of
from worker import sweep as swept
from worker.app import FOLLOW, SPREAD, TASKS, configure
from worker.intake.accept import NIL
from worker.runtime import Runtime
from worker.steps.run import batch_size
from worker.sweep import WAKE_AT_MOST, sweep

Woken = list[tuple[str, int]]


@pytest.fixture
def waiting() -> dict[str, int]:
    """The lengths of the queues."""
    return dict.fromkeys(TASKS, 0)


@pytest.fixture
def woken(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, waiting: dict[str, int]) -> Woken:
    """What was asked of the queue, whose lengths the test sets. The feed is not due."""
    sent: Woken = []
    monkeypatch.setattr(swept, "wake", lambda _app, task, *, count: sent.append((task, count)))
    monkeypatch.setattr(swept, "backlog", lambda _app: waiting)
    later = LONG_AGO + timedelta(days=36_500)
    add(runtime.database, ChangeCursor(due_at=later))
    return sent


def run(runtime: Runtime) -> Any:
    return sweep(runtime, configure(runtime.settings, Role.CONSUMER))


def due_polls(runtime: Runtime, count: int, state: State = State.READY) -> None:
    tenant = a_tenant()
    rows = [a_connection(tenant, state=state) for _ in range(count)]
    with runtime.database.write() as session:
        session.add(tenant)
        session.flush()
        session.add_all(rows)
        session.flush()
        session.add_all([a_work(row) for row in rows])


def test_nothing_due_wakes_nobody(runtime: Runtime, woken: Woken) -> None:
    """An idle system sends no messages at all."""
    added(runtime.database, state=State.READY, work={"due_at": None})

    assert run(runtime) == {}
    assert woken == []


def test_due_steps_are_woken(runtime: Runtime, woken: Woken) -> None:
    """One wake-up for each step that has work; the rows stay as they are until they are claimed."""
    row = added(runtime.database, state=State.CAPTURED)
    poll = added(runtime.database, state=State.READY, revision=2)
    add(runtime.database, a_work(poll, lane=Lane.CHANGES))

    assert run(runtime) == {Step.CREATE: 1, Step.POLL: 1, Step.UPDATE: 1}
    assert sorted(woken) == sorted([(Step.CREATE, 1), (Step.POLL, 1), (Step.UPDATE, 1)])
    assert work_of(runtime.database, row).fence == 0


def test_more_work_wakes_more_workers(runtime: Runtime, woken: Woken) -> None:
    """As many wake-ups as batches, up to a limit: a full batch wakes the next one by itself."""
    due_polls(runtime, batch_size(Step.CREATE) + 1, State.CAPTURED)
    due_polls(runtime, WAKE_AT_MOST * batch_size(Step.REMOVE) + 1, State.REMOVING)

    assert run(runtime) == {Step.CREATE: 2, Step.REMOVE: WAKE_AT_MOST}


def test_queue_that_is_behind_gets_no_more(runtime: Runtime, woken: Woken, waiting: dict[str, int]) -> None:
    """Wake-ups that wait already serve what is due by now; the other queues go on."""
    waiting[Step.POLL] = WAKE_AT_MOST
    waiting[Step.CREATE] = WAKE_AT_MOST - 1
    due_polls(runtime, 2)
    due_polls(runtime, 3 * batch_size(Step.CREATE), State.CAPTURED)

    assert run(runtime) == {Step.POLL: 0, Step.CREATE: 1}


def test_task_that_is_behind_keeps_no_other_from_being_woken(
    runtime: Runtime, woken: Woken, waiting: dict[str, int]
) -> None:
    """However many captures and polls wait, updates, removals and the feed have room of their own."""
    waiting |= {Step.CAPTURE: 20, Step.POLL: 20}
    due_polls(runtime, 1, State.REQUESTED)
    added(runtime.database, state=State.REMOVING)
    row = added(runtime.database, state=State.READY, revision=2, applied_revision=1)
    add(runtime.database, a_work(row, lane=Lane.CHANGES))
    with runtime.database.write() as session:
        session.get_one(ChangeCursor, "syncs").due_at = LONG_AGO

    asked = {Step.CAPTURE: 0, Step.POLL: 0, Step.UPDATE: 1, Step.REMOVE: 1, FOLLOW: 1}
    assert run(runtime) == asked


def test_feed_and_spreading_are_woken(runtime: Runtime, woken: Woken) -> None:
    """What is not a step of a connection is found by the sweep as well."""
    with runtime.database.write() as session:
        session.get_one(ChangeCursor, "syncs").due_at = LONG_AGO
    add(runtime.database, a_tenant(spread_after=NIL))

    assert run(runtime) == {FOLLOW: 1, SPREAD: 1}


def test_one_sweep_at_a_time(runtime: Runtime, woken: Woken) -> None:
    """A sweep that begins while another one is counting leaves it to that one."""
    added(runtime.database)

    with runtime.database.alone("sweep") as is_alone:
        assert is_alone
        assert run(runtime) == {}

    assert run(runtime) == {Step.CAPTURE: 1}


def test_broker_that_is_away_is_no_failure_of_the_sweep(
    runtime: Runtime, woken: Woken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the broker nobody can be woken: the next sweep finds the same rows."""

    def away(_app: object) -> dict[str, int]:
        raise RedisConnectionError

    monkeypatch.setattr(swept, "backlog", away)
    row = added(runtime.database)

    assert run(runtime) == {Step.CAPTURE: 0}
    assert work_of(runtime.database, row).fence == 0
