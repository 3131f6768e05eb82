"""The sweep: counts what is due and wakes workers for it. It finds what lost messages left behind."""

import math
from collections.abc import Mapping
from typing import Final

import structlog
from celery import Celery
from redis.exceptions import RedisError

from foundation.backlog import backlog as lengths
from models import Step
from worker.app import FOLLOW, SPREAD, TASKS
from worker.intake.spread import is_spreading
from worker.queue.schedule import due_counts
from worker.queue.wakeups import wake
from worker.runtime import Runtime
from worker.steps.feed import is_due as is_feed_due
from worker.steps.run import batch_size

log = structlog.get_logger()

WAKE_AT_MOST: Final = 4
"""Wake-ups of one step that may wait at the same time: each takes a batch, and a full one wakes the next."""


def sweep(runtime: Runtime, app: Celery) -> Mapping[str, int]:
    """Wake workers for what is due; returns how many wake-ups of each task were sent.

    One sweep at a time over all processes: another one that begins meanwhile does nothing.
    """
    with runtime.database.alone("sweep") as is_alone:
        if not is_alone:
            return {}
        wanted = _wanted(runtime)
    if not wanted:
        return {}
    room = _room(app)
    sent = {}
    for task, count in wanted.items():
        sent[task] = min(count, room.get(task, 0))
        wake(app, task, count=sent[task])
    return sent


def _wanted(runtime: Runtime) -> dict[str, int]:
    largest = WAKE_AT_MOST * max(batch_size(step) for step in Step)
    with runtime.database.read() as session:
        now = runtime.database.now(session)
        due = due_counts(session, now=now, at_most=largest)
        wanted: dict[str, int] = {
            step: min(math.ceil(count / batch_size(step)), WAKE_AT_MOST)
            for step, count in due.items()
            if count
        }
        if is_feed_due(session, now=now):
            wanted[FOLLOW] = 1
        if is_spreading(session):
            wanted[SPREAD] = 1
    return wanted


def _room(app: Celery) -> dict[str, int]:
    """How many more wake-ups of each task would not only wait; none while the broker is away."""
    try:
        waiting = backlog(app)
    except RedisError as exc:
        log.warning("sweep.broker_away", reason=type(exc).__name__)
        return {}
    return {queue: max(WAKE_AT_MOST - count, 0) for queue, count in waiting.items()}


def backlog(app: Celery) -> dict[str, int]:
    """How many messages wait in each queue."""
    return lengths(app, TASKS)
