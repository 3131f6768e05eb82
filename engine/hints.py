"""Messages that say "look at these rows now". They carry ids only, and losing one costs a moment."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from foundation.queue import Role, celery_settings

READ: Final = "backfill.read"
SWEEP: Final = "engine.sweep"
PURGE: Final = "engine.purge"
BACKFILL_QUEUE: Final = "engine.backfill"
MAINTENANCE_QUEUE: Final = "engine.maintenance"
ROUTES: Final = {READ: BACKFILL_QUEUE, SWEEP: MAINTENANCE_QUEUE, PURGE: MAINTENANCE_QUEUE}
QUEUES: Final = (BACKFILL_QUEUE, MAINTENANCE_QUEUE)

BROKER_ERRORS: Final = (KombuError, RedisError, OSError)
IDS_PER_MESSAGE: Final = 8
LINGER_S: Final = 0.02
"""A burst of requests shares its messages; each would cost as much as the request itself."""
WAITING: Final = 10_000
"""Hints kept in memory while the broker is slow; beyond, the sweep is quicker anyway."""

log = structlog.get_logger(__name__)


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


class Relay:
    """Hands hints to the broker from a thread of its own, so that no request ever waits for it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.Queue[tuple[str, UUID] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Send what is waiting if the broker takes it in time; the sweep finds the rest."""
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def give(self, task: str, ids: Iterable[UUID]) -> None:
        """Note hints for sending; never blocks and never raises."""
        for each in ids:
            try:
                self._waiting.put_nowait((task, each))
            except queue.Full:
                return

    def _run(self) -> None:
        while (hint := self._waiting.get()) is not None:
            time.sleep(LINGER_S)
            for task, ids in batches([hint, *self._drain()]):
                self._send(task, ids)

    def _drain(self) -> Iterator[tuple[str, UUID]]:
        """Whatever else is waiting right now; the word to stop is put back to be met again."""
        for _ in range(self._waiting.qsize()):
            hint = self._waiting.get()
            if hint is None:
                self._waiting.put(None)
                return
            yield hint

    def _send(self, task: str, ids: Sequence[UUID]) -> None:
        try:
            send(self._app, task, ids)
        except BROKER_ERRORS as exc:
            log.warning("hint.not_sent", task=task, count=len(ids), error=type(exc).__name__)


def batches(hints: Iterable[tuple[str, UUID]]) -> Iterator[tuple[str, Sequence[UUID]]]:
    """Few messages with several ids each, one task per message."""
    by_task: dict[str, list[UUID]] = {}
    for task, each in hints:
        by_task.setdefault(task, []).append(each)
    for task, ids in by_task.items():
        for start in range(0, len(ids), IDS_PER_MESSAGE):
            yield task, ids[start : start + IDS_PER_MESSAGE]
