"""The sweep: offers every due row to the queue. It finds what messages lost, and it drives all polling."""

from collections.abc import Mapping
from typing import Final

import structlog
from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import ChannelError

from foundation.database import utc_now
from models import Step
from worker.app import QUEUE_OF
from worker.errors import PausedError
from worker.hints import publish
from worker.rows.due import DueRows, take_due
from worker.rows.record import HINT_GRACE
from worker.runtime import Runtime

log = structlog.get_logger()

BACKLOG_LIMIT: Final = 40
"""Messages waiting in a queue beyond which the sweep leaves rows where they are: in fair order."""


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
    with app.connection_or_acquire() as connection:
        return {name: _length(name, connection) for name in set(QUEUE_OF.values())}


def _length(name: str, connection: Connection) -> int:
    """A channel each, since asking RabbitMQ for a queue that is not there closes the channel."""
    with connection.channel() as channel:
        try:
            declared = Queue(name)(channel).queue_declare(passive=True)
            return int(declared.message_count)  # type: ignore[union-attr]  # the stubs know no message_count
        except ChannelError:
            return 0  # a queue that nobody has declared yet is empty
