"""The thin edge that all step tasks share: ids in, one run, and what the queue is asked for next."""

from uuid import UUID

import structlog
from celery import Task

from foundation.queue import MAX_COUNTDOWN_S
from models import Step
from worker.hints import publish
from worker.runtime import runtime
from worker.steps.run import run_step


def perform(task: "Task[..., None]", step: Step, connection_ids: list[str]) -> None:
    """Do the step for these connections; running it again is harmless.

    What failed for the moment goes back to the queue as a retry of this task, when the wait is short. Each
    row is due by itself all the same, should the message get lost.
    """
    task_id = task.request.id
    with structlog.contextvars.bound_contextvars(task_id=task_id):
        done = run_step(runtime(), step, [UUID(i) for i in connection_ids], task_id=task_id)
        for next_step, ids in done.due.items():
            publish(task.app, next_step, ids)
        countdown = done.retry_in.total_seconds()
    if done.to_retry and countdown <= MAX_COUNTDOWN_S:
        raise task.retry(args=([str(i) for i in done.to_retry],), countdown=countdown)
