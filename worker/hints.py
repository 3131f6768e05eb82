"""Hints: messages that say "look at these rows now". A lost one costs a moment: the sweep finds the rows."""

import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from models import Step
from worker.app import QUEUE_OF

log = structlog.get_logger()

IDS_PER_MESSAGE: Final = 50
POLLS_PER_MESSAGE: Final = 250  # they are read with few calls, so the more the better
GATHER_S: Final = 0.1
CLOSE: Final = None


def publish(app: Celery, step: Step, ids: Sequence[UUID]) -> None:
    """Send messages for these rows. A broker that is down is logged and otherwise left to the sweep."""
    size = POLLS_PER_MESSAGE if step is Step.POLL else IDS_PER_MESSAGE
    try:
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            app.send_task(step, args=[[str(i) for i in chunk]], queue=QUEUE_OF[step])
    except (OperationalError, OSError) as exc:
        log.warning("hint.lost", step=step, connections=len(ids), reason=type(exc).__name__)


class Relay:
    """Publishes from a thread of its own, so that a web request never waits for the broker.

    The first hint goes out at once; what comes soon after it goes out together, in few messages.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[tuple[Step, UUID] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def offer(self, hints: Iterable[tuple[Step, UUID]]) -> None:
        """Have these rows looked at soon. Returns at once."""
        for hint in hints:
            self._waiting.put(hint)

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what is waiting, as far as the broker allows in this time."""
        self._closing.set()
        self._waiting.put(CLOSE)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closing.is_set():
            gathered = self._gather()
            for step, ids in gathered.items():
                publish(self._app, step, ids)
            self._closing.wait(GATHER_S)
        for step, ids in self._gather(wait=False).items():
            publish(self._app, step, ids)

    def _gather(self, *, wait: bool = True) -> dict[Step, list[UUID]]:
        """All that is waiting; if there is nothing, the first to come."""
        gathered: dict[Step, list[UUID]] = {}
        try:
            hint = self._waiting.get(block=wait)
            while hint is not CLOSE:
                step, connection_id = hint
                gathered.setdefault(step, []).append(connection_id)
                hint = self._waiting.get_nowait()
        except queue.Empty:
            pass
        return gathered
