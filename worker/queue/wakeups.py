"""Wake-ups: messages that say "there is work for this step". They carry no ids; a lost one costs a moment."""

import threading
from collections.abc import Callable
from typing import Final

import structlog
from celery import Celery

from foundation.backlog import backlog
from foundation.hints import BROKER_ERRORS

GATHER_S: Final = 0.1
WAITING_AT_MOST: Final = 20
"""Messages in one queue; a run that finds nothing due costs little, but thousands of them cost time."""

log = structlog.get_logger()


def wake(app: Celery, task: str, *, count: int = 1) -> bool:
    """Ask for runs of a task. False if the broker did not take them: then the sweep asks again."""
    try:
        for _ in range(count):
            app.send_task(task, queue=task, ignore_result=True)
    except BROKER_ERRORS as exc:
        log.warning("wakeup.lost", task=task, reason=type(exc).__name__)
        return False
    return True


def wake_if_room(app: Celery, task: str) -> bool:
    """Ask for a run, unless so many messages wait in its queue that one more would change nothing."""
    try:
        waiting = backlog(app, [task])[task]
    except BROKER_ERRORS as exc:
        log.warning("wakeup.lost", task=task, reason=type(exc).__name__)
        return False
    return waiting < WAITING_AT_MOST and wake(app, task)


class Waker:
    """Wakes from a thread of its own, so that no request ever waits for the broker.

    The first wake-up goes out at once; the same ones that follow within a moment become one.
    """

    def __init__(self, send: Callable[[str], object], *, gather_s: float = GATHER_S) -> None:
        self._send = send
        self._gather_s = gather_s
        self._wanted: set[str] = set()
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def give(self, task: str) -> None:
        """Have this task run soon. Never blocks for long and never raises."""
        with self._lock:
            self._wanted.add(task)
        self._asked.set()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Send what is waiting if the broker takes it in time; the sweep finds the rest."""
        self._stopping.set()
        self._asked.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._asked.wait()
            self._send_wanted()
            self._stopping.wait(self._gather_s)
        self._send_wanted()

    def _send_wanted(self) -> None:
        self._asked.clear()
        with self._lock:
            wanted, self._wanted = self._wanted, set()
        for task in sorted(wanted):
            try:
                self._send(task)
            except Exception as exc:  # noqa: BLE001  # the thread must live; the sweep asks again
                log.error("wakeup.broken", task=task, reason=type(exc).__name__)  # noqa: TRY400
