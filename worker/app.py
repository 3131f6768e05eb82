"""The Celery app. Task modules are named as strings, so nothing imports a task to register it."""

from typing import Final

from celery import Celery
from kombu import Queue

from foundation.queue import Role, celery_settings
from models import Step
from worker.settings import Settings

ONBOARDING: Final = "onboarding"
POLLING: Final = "polling"
MAINTENANCE: Final = "maintenance"
FOLLOW: Final = "sync.follow"
SWEEP: Final = "maintenance.sweep"
SPREAD: Final = "tenant.spread"
PURGE: Final = "maintenance.purge"

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    ONBOARDING: (Step.CAPTURE, Step.CREATE, Step.UPDATE, Step.REMOVE),
    POLLING: (Step.POLL, FOLLOW),
    MAINTENANCE: (SWEEP, SPREAD, PURGE),
}
"""Each task has a queue of its own, named as the task, so that none stands behind another's messages.

A worker consumes the queues of one group or several.
"""
TASKS: Final = tuple(task for group in GROUPS.values() for task in group)

PURGE_EVERY_S: Final = 3600.0

app = Celery("gangway", include=["tasks.credential", "tasks.sync", "tasks.tenant", "tasks.maintenance"])


def configure(settings: Settings, role: Role) -> Celery:
    """Give the app its broker, queues, routes and timetable; every process does so before it uses it."""
    broker_url = settings.broker_url.get_secret_value()
    app.conf.update(
        celery_settings(broker_url, default_queue=SWEEP, role=role),
        task_queues=[Queue(task) for task in TASKS],
        task_routes={task: {"queue": task} for task in TASKS},
        beat_schedule={
            "sweep": _every(SWEEP, settings.sweep_every_s),
            "purge": _every(PURGE, PURGE_EVERY_S),
        },
    )
    return app


def _every(task: str, seconds: float) -> dict[str, object]:
    # messages that piled up while no worker ran are worth no more than the newest
    return {"task": task, "schedule": seconds, "options": {"expires": max(5.0, 3 * seconds)}}
