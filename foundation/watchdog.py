"""A worker can hang for ever while it answers pings: only progress proves life.

Measured on Celery 5.7 with Redis: a failed acknowledgement leaks a prefetch credit, a half-open connection
blocks the main loop. Either way messages wait, nothing runs and nothing says so. Or every thread is stuck in
a call that never ends: then tasks do run, but none begins or ends. The watchdog ends such a process, and its
supervisor starts a new one.
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

BUSY_LIMIT_S: Final = 120.0
"""Tasks here take seconds, so no work that goes on well comes near it."""
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


@dataclass(frozen=True, slots=True)
class Limits:
    """How long no task may begin or end although messages wait."""

    idle_s: float
    """While nothing runs."""
    busy_s: float = BUSY_LIMIT_S
    """While something runs."""

    def of(self, running: int) -> float:
        return self.busy_s if running else self.idle_s


def is_stalled(progress: Progress, *, waiting: int, still_s: float, limits: Limits) -> bool:
    """Return whether messages wait and no task has begun or ended for too long."""
    return waiting > 0 and still_s >= limits.of(progress.running)


class Watchdog:
    """Watches this process's progress and ends it when it has stalled."""

    def __init__(
        self,
        waiting: WaitingMessages,
        *,
        limit_s: float,
        busy_limit_s: float = BUSY_LIMIT_S,
        end: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = Progress(moved_at=clock(), clock=clock)
        self._waiting = waiting
        self._limits = Limits(limit_s, max(limit_s, busy_limit_s))
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
        still_s = now - max(self.progress.moved_at, self._waiting_since)
        if is_stalled(self.progress, waiting=waiting, still_s=still_s, limits=self._limits):
            running = self.progress.running
            log.error("watchdog.stalled", waiting=waiting, running=running, still_s=round(still_s, 1))
            self._end(EXIT_STATUS)

    def _run(self) -> None:
        while True:
            time.sleep(self._limits.idle_s / 10)
            self.look()
