"""The thin edge that all tasks share: one run, its summary, and what the queue is asked for next."""

from collections.abc import Callable
from datetime import timedelta

import structlog
from celery import Task

from foundation.queue import MAX_COUNTDOWN_S
from models import Step
from worker.queue.wakeups import wake
from worker.runtime import Runtime, runtime
from worker.steps.report import Report
from worker.steps.run import run_step


class ConnectionsFailedError(Exception):
    """Connections failed for good in this run. Names tenant, provider and code; the run is complete.

    Every task of a step names it as what it `throws`, or Celery would log a traceback: the step has told
    of each failure already.
    """


class TryAgainError(Exception):
    """Some connections are to be tried again; the message is the summary of the run."""


Run = Callable[[Runtime, str], Report]
"""Does one batch, for the task with this id."""


def step(which: Step) -> Run:
    """Run this step of the lifecycle."""

    def run(runtime: Runtime, task_id: str) -> Report:
        return run_step(runtime, which, task_id=task_id)

    return run


def perform(task: "Task[..., str]", run: Run) -> str:
    """Run once and say what happened. Running it again is harmless.

    A full batch wakes the next run. Connections that failed for the moment bring the task back as a retry
    when the wait is short; their rows are due by themselves all the same, should that message get lost.
    """
    task_id = str(task.request.id)
    with structlog.contextvars.bound_contextvars(task_id=task_id):
        report = run(runtime(), task_id)
    if report.is_full:
        wake(task.app, str(task.name))
    if report.failed:
        raise ConnectionsFailedError(f"{report.failures} ({report.summary})")
    if report.retry_in is not None and report.retry_in <= timedelta(seconds=MAX_COUNTDOWN_S):
        raise task.retry(exc=TryAgainError(report.summary), countdown=report.retry_in.total_seconds())
    return report.summary
