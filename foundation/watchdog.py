"""A worker can hang for ever while it answers pings: only progress proves life.

Measured on Celery 5.7 with Redis: a failed acknowledgement leaks a prefetch credit, a half-open connection
blocks the main loop. Either way messages wait, nothing runs and nothing says so. The watchdog ends such a
process, and its supervisor starts a new one.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from celery.signals import task_postrun, task_prerun

log = structlog.get_logger()

EXIT_STATUS: Final = 75  # EX_TEMPFAIL: start me again
WaitingMessages = Callable[[], int]
"""How many messages wait for this worker; raises when the broker does not answer."""


@dataclass
class Progress:
    """When tasks last began or ended, and how many run. Written by task threads, read by the watchdog."""

    moved_at: float
    clock: Callable[[], float] = time.monotonic
    running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def began(self, **_: object) -> None:
        self._move(+1)

    def ended(self, **_: object) -> None:
        self._move(-1)

    def _move(self, change: int) -> None:
        with self._lock:
            self.running += change
            self.moved_at = self.clock()


def is_stalled(progress: Progress, *, waiting: int, since_idle_s: float, limit_s: float) -> bool:
    """Messages wait, nothing runs, and it has been so for too long."""
    return waiting > 0 and progress.running == 0 and since_idle_s >= limit_s


class Watchdog:
    """Watches this process's progress and ends it when it has stalled."""

    def __init__(
        self,
        waiting: WaitingMessages,
        *,
        limit_s: float,
        end: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = Progress(moved_at=clock(), clock=clock)
        self._waiting = waiting
        self._limit_s = limit_s
        self._end = end
        self._clock = clock
        self._waiting_since: float | None = None

    def start(self) -> None:
        """Follow this process's tasks and look after them from a thread."""
        task_prerun.connect(self.progress.began, weak=False)
        task_postrun.connect(self.progress.ended, weak=False)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def look(self) -> None:
        """One look: end the process if it has made no progress for too long although messages wait."""
        try:
            waiting = self._waiting()
        except Exception as exc:  # noqa: BLE001  # whatever the broker's client raises: no broker, no verdict
            log.warning("watchdog.blind", reason=type(exc).__name__)
            self._waiting_since = None
            return
        now = self._clock()
        if waiting == 0:
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since = now
        idle_s = now - max(self.progress.moved_at, self._waiting_since)
        if is_stalled(self.progress, waiting=waiting, since_idle_s=idle_s, limit_s=self._limit_s):
            log.error("watchdog.stalled", waiting=waiting, idle_s=round(idle_s, 1))
            self._end(EXIT_STATUS)

    def _run(self) -> None:
        while True:
            time.sleep(self._limit_s / 10)
            self.look()
