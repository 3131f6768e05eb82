"""Hints: messages that say "look at these rows now". A lost one costs a moment: a sweep finds the rows."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from foundation.queue import MAX_COUNTDOWN_S

BROKER_ERRORS: Final = (KombuError, RedisError, OSError)
"""All that a broker's client raises when the broker is down, frozen or refuses us."""
GATHER_S: Final = 0.1
WAITING: Final = 10_000
"""Hints kept in memory while the broker is slow; beyond, the sweep is quicker anyway."""

Publish = Callable[[str, Sequence[UUID]], object]
"""Sends messages of this task about these rows, and never raises what a broker may raise."""

log = structlog.get_logger(__name__)


def publish(
    app: Celery, task: str, ids: Sequence[UUID], *, to: str, ids_per_message: int, later_s: float = 0.0
) -> None:
    """Send few messages with many ids each; a broker that is down is logged and left to the sweep.

    What is for later waits in a worker's memory, so it must be for soon.
    """
    countdown = min(later_s, MAX_COUNTDOWN_S) or None
    try:
        for some in chunks(ids, ids_per_message):
            arguments = [[str(each) for each in some]]
            app.send_task(task, args=arguments, queue=to, countdown=countdown, ignore_result=True)
    except BROKER_ERRORS as exc:
        log.warning("hint.lost", task=task, rows=len(ids), reason=type(exc).__name__)


def chunks(ids: Sequence[UUID], size: int) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


class Relay:
    """Publishes from a thread of its own, so that no request ever waits for the broker.

    The first hint goes out at once; what comes soon after it goes out together, in few messages.
    """

    def __init__(self, publish: Publish, *, gather_s: float = GATHER_S) -> None:
        self._publish = publish
        self._gather_s = gather_s
        self._waiting: queue.Queue[tuple[str, UUID] | None] = queue.Queue(WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def give(self, task: str, ids: Iterable[UUID]) -> None:
        """Have these rows looked at soon. Never blocks and never raises."""
        for each in ids:
            try:
                self._waiting.put_nowait((task, each))
            except queue.Full:
                return

    def stop(self, timeout_s: float = 1.0) -> None:
        """Send what is waiting if the broker takes it in time; the sweep finds the rest."""
        self._stopping.set()
        with suppress(queue.Full):  # full, the thread is not waiting for a hint and sees that it is to stop
            self._waiting.put_nowait(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._send(self._gather(wait=True))
            self._stopping.wait(self._gather_s)
        self._send(self._gather(wait=False))

    def _send(self, gathered: dict[str, list[UUID]]) -> None:
        for task, ids in gathered.items():
            self._publish(task, ids)

    def _gather(self, *, wait: bool) -> dict[str, list[UUID]]:
        """All that is waiting; if there is nothing, the first to come."""
        gathered: dict[str, list[UUID]] = {}
        try:
            hint = self._waiting.get(block=wait)
            while hint is not None:
                task, each = hint
                gathered.setdefault(task, []).append(each)
                hint = self._waiting.get_nowait()
        except queue.Empty:
            pass
        return gathered
