"""The sweep: offers what is due to the queues that have room, and nothing while calls are paused."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from foundation.backlog import BACKLOG_LIMIT
from foundation.queue import Role
from models import State, Step
from tests.support.rows import added, stored
from worker import sweep as swept
from worker.app import MAINTENANCE, ONBOARDING, POLLING, configure
from worker.runtime import Runtime
from worker.sweep import steps_with_room, sweep

Published = list[tuple[Step, list[UUID]]]


@pytest.fixture
def waiting() -> dict[str, int]:
    return {}


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, waiting: dict[str, int]) -> Published:
    """What went to the queue, whose length the test sets."""
    sent: Published = []
    monkeypatch.setattr(swept, "publish", lambda _app, step, ids: sent.append((step, list(ids))))
    monkeypatch.setattr(swept, "backlog", lambda _app: waiting)
    return sent


def run(runtime: Runtime) -> Any:
    return sweep(runtime, configure(runtime.settings, Role.CONSUMER))


def test_due_rows_are_offered(runtime: Runtime, published: Published) -> None:
    """Each due row is published under its step and known to be under way."""
    row = added(runtime.database, state=State.CAPTURED)

    assert run(runtime) == {Step.CREATE: [row.id]}
    assert published == [(Step.CREATE, [row.id])]
    assert stored(runtime.database, row).hinted_until is not None


def test_pause_holds_the_sweep_too(runtime: Runtime, published: Published) -> None:
    """While calls are paused nothing is offered: it could only be put off again."""
    row = added(runtime.database)
    runtime.gate.pause(timedelta(seconds=30))

    assert run(runtime) == {}
    assert stored(runtime.database, row).hinted_until is None


def test_full_queue_gets_no_more(runtime: Runtime, published: Published, waiting: dict[str, int]) -> None:
    """Rows for a full queue stay where they are, in fair order; the others go on."""
    waiting[POLLING] = BACKLOG_LIMIT
    poll = added(runtime.database, state=State.READY)
    create = added(runtime.database, state=State.CAPTURED)

    assert run(runtime) == {Step.CREATE: [create.id]}
    assert stored(runtime.database, poll).hinted_until is None


@pytest.mark.parametrize(
    ("lengths", "steps"),
    [
        ({}, set(Step)),
        ({ONBOARDING: BACKLOG_LIMIT - 1, MAINTENANCE: 10**6}, set(Step)),
        ({ONBOARDING: BACKLOG_LIMIT}, {Step.POLL}),
        ({POLLING: BACKLOG_LIMIT}, set(Step) - {Step.POLL}),
        ({POLLING: BACKLOG_LIMIT, ONBOARDING: BACKLOG_LIMIT}, set()),
    ],
)
def test_room_is_counted_by_queue(lengths: dict[str, int], steps: set[Step]) -> None:
    """A step has room as long as its own queue is short."""
    assert steps_with_room(lengths) == steps
