"""Which message tells whom to look at a connection: the task of its next step, on that task's queue."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from celery import Celery

from foundation import hints
from models import Step
from worker.app import QUEUE_OF

IDS_PER_MESSAGE: Final = 50
POLLS_PER_MESSAGE: Final = 250  # they are read with few calls, so the more the better


def publish(app: Celery, step: Step, ids: Sequence[UUID]) -> None:
    """Have the step done for these connections soon; the sweep finds those the broker does not take."""
    size = POLLS_PER_MESSAGE if step is Step.POLL else IDS_PER_MESSAGE
    hints.publish(app, step, ids, to=QUEUE_OF[step], ids_per_message=size)


def relay(app: Celery) -> hints.Relay:
    """A relay for a process that must not wait for the broker."""
    return hints.Relay(lambda task, ids: publish(app, Step(task), ids))
