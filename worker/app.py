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
SWEEP: Final = "maintenance.sweep"

QUEUE_OF: Final[dict[str, str]] = {
    Step.CAPTURE: ONBOARDING,
    Step.CREATE: ONBOARDING,
    Step.UPDATE: ONBOARDING,
    Step.REMOVE: ONBOARDING,
    Step.POLL: POLLING,
    SWEEP: MAINTENANCE,
}
"""Polls never stand behind a burst of creates, and the sweep stands behind neither."""

app = Celery("gangway", include=["tasks.credential", "tasks.sync", "tasks.maintenance"])


def configure(settings: Settings, role: Role) -> Celery:
    """Give the app its broker, queues, routes and timetable; every process does so before it uses it."""
    broker_url = settings.broker_url.get_secret_value()
    app.conf.update(
        celery_settings(broker_url, default_queue=MAINTENANCE, role=role),
        task_queues=[Queue(name) for name in sorted(set(QUEUE_OF.values()))],
        task_routes={task: {"queue": queue} for task, queue in QUEUE_OF.items()},
        beat_schedule={
            "sweep": {
                "task": SWEEP,
                "schedule": settings.sweep_every_s,
                # sweeps that piled up while no worker ran are worth no more than the newest
                "options": {"expires": max(5.0, 3 * settings.sweep_every_s)},
            }
        },
    )
    return app
