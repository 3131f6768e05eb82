"""Keeping leases alive while the work goes on, so that leases can be short and a killed worker's end soon."""

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import structlog

K = TypeVar("K", bound=Hashable)
Renew = Callable[[Mapping[K, int]], None]
"""Prolongs the leases of rows, by key and fence; rows taken over by others are left alone."""

log = structlog.get_logger(__name__)


class Leases(Generic[K]):
    """What this process is working on: rows by key, each under the fence of its claim."""

    def __init__(self, silent_at_most_s: float = math.inf) -> None:
        self._silent_at_most_s = silent_at_most_s
        self._held: dict[K, tuple[int, float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, claims: Mapping[K, int]) -> Iterator[None]:
        """Hold these until the block ends, also when it ends badly."""
        self.hold(claims)
        try:
            yield
        finally:
            self.let_go(claims)

    def hold(self, claims: Mapping[K, int]) -> None:
        """Hold what has just been claimed, or has just got further and so has a fresh lease anyway."""
        now = time.monotonic()
        with self._lock:
            self._held.update({row_id: (fence, now) for row_id, fence in claims.items()})

    def let_go(self, claims: Mapping[K, int]) -> None:
        """Each was done, unless it has been claimed anew since."""
        with self._lock:
            for row_id, fence in claims.items():
                if row_id in self._held and self._held[row_id][0] == fence:
                    del self._held[row_id]

    def held(self, silent_for_s: float = 0.0) -> dict[K, int]:
        """Rows not renewed for `silent_for_s` seconds, without those that have been silent for too long."""
        now = time.monotonic()
        with self._lock:
            return {
                row_id: fence
                for row_id, (fence, said_at) in self._held.items()
                if silent_for_s <= now - said_at < self._silent_at_most_s
            }


class LeaseKeeper(Generic[K]):
    """Renews, from a thread of its own, the leases that nothing else has renewed for a while."""

    def __init__(self, leases: Leases[K], renew: Renew[K], *, every_s: float) -> None:
        self._leases = leases
        self._renew = renew
        self._every_s = every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            if held := self._leases.held(silent_for_s=self._every_s / 2):
                self._try_to_renew(held)

    def _try_to_renew(self, held: Mapping[K, int]) -> None:
        try:
            self._renew(held)
        except Exception as exc:  # noqa: BLE001  # then leases run out, and the fence keeps us from harm
            log.warning("lease.not_renewed", rows=len(held), reason=type(exc).__name__)
