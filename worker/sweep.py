"""The sweep: offers every due row to the queue. It finds what messages lost, and it drives all polling."""

from collections.abc import Mapping

import structlog
from celery import Celery

from foundation.backlog import BACKLOG_LIMIT
from foundation.backlog import backlog as lengths
from foundation.database import utc_now
from models import Step
from worker.app import QUEUE_OF
from worker.errors import PausedError
from worker.hints import publish
from worker.rows.due import DueRows, take_due
from worker.rows.record import HINT_GRACE
from worker.runtime import Runtime

log = structlog.get_logger()


def sweep(runtime: Runtime, app: Celery) -> DueRows:
    """Offer what is due to the queues that have room; returns what was offered."""
    try:
        runtime.gate.check()
    except PausedError:
        return {}
    steps = steps_with_room(backlog(app))
    if not steps:
        log.warning("sweep.waits", reason="every queue is full")
        return {}
    with runtime.database.write() as session:
        due = take_due(session, now=utc_now(), hint_for=HINT_GRACE, steps=steps)
    for step, ids in due.items():
        publish(app, step, ids)
    return due


def steps_with_room(waiting: Mapping[str, int]) -> set[Step]:
    """The steps whose queue is short enough to take more."""
    return {step for step in Step if waiting.get(QUEUE_OF[step], 0) < BACKLOG_LIMIT}


def backlog(app: Celery) -> dict[str, int]:
    """How many messages wait in each queue."""
    return lengths(app, set(QUEUE_OF.values()))
