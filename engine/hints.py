"""Messages that say "look at these rows now". They carry ids only, and losing one costs a moment."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol
from uuid import UUID

from celery import Celery
from kombu import Exchange, Queue

from foundation import hints
from foundation.queue import Role, celery_settings

READ: Final = "backfill.read"
INSPECT: Final = "collections.inspect"
SWEEP: Final = "engine.sweep"
PURGE: Final = "engine.purge"
BACKFILL_QUEUE: Final = "engine.backfill"
MAINTENANCE_QUEUE: Final = "engine.maintenance"
ROUTES: Final = {
    READ: BACKFILL_QUEUE,
    INSPECT: BACKFILL_QUEUE,
    SWEEP: MAINTENANCE_QUEUE,
    PURGE: MAINTENANCE_QUEUE,
}
QUEUES: Final = (BACKFILL_QUEUE, MAINTENANCE_QUEUE)

PURGE_EVERY_S: Final = 60.0
IDS_PER_MESSAGE: Final = 8
LINGER_S: Final = 0.02
"""A burst of requests shares its messages; each would cost as much as the request itself."""


class Hints(Protocol):
    """Where hints go."""

    def give(self, task: str, ids: Iterable[UUID]) -> None: ...


def new_celery(broker_url: str, role: Role) -> Celery:
    """A Celery app that knows the engine's queues."""
    app = Celery("engine", set_as_current=False)
    app.conf.update(celery_settings(broker_url, default_queue=BACKFILL_QUEUE, role=role))
    app.conf.task_queues = [Queue(name, Exchange(name), routing_key=name) for name in QUEUES]
    app.conf.task_routes = {task: {"queue": name} for task, name in ROUTES.items()}
    return app


def send(app: Celery, task: str, ids: Sequence[UUID], *, expires_s: float | None = None) -> None:
    """Put one message on its queue; raises when the broker does not take it."""
    arguments = [[str(each) for each in ids]] if ids else []
    app.send_task(task, args=arguments, queue=ROUTES[task], expires=expires_s, ignore_result=True)


def publish(app: Celery, task: str, ids: Sequence[UUID], *, later_s: float = 0.0) -> None:
    """Have these rows looked at soon; the sweep finds those the broker does not take."""
    hints.publish(app, task, ids, to=ROUTES[task], ids_per_message=IDS_PER_MESSAGE, later_s=later_s)


def relay(broker_url: str) -> hints.Relay:
    """A relay for a process that must not wait for the broker."""
    app = new_celery(broker_url, Role.PUBLISHER)
    return hints.Relay(lambda task, ids: publish(app, task, ids), gather_s=LINGER_S)
