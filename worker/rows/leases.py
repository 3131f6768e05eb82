"""Keeping leases alive while the work goes on, so that leases can be short and a killed worker's end soon."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from foundation.database import Database, utc_now
from worker.rows.claims import renew
from worker.steps.verdict import Claim

log = structlog.get_logger()


class LeaseKeeper:
    """Renews, from a thread of its own, the leases of everything this process is working on."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        self._database = database
        self._lease = lease
        self._held: dict[UUID, int] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Hold these claims until the block ends, or `release` lets go of them one by one."""
        with self._lock:
            self._held.update({c.connection.id: c.connection.fence for c in claims})
        try:
            yield
        finally:
            self.release(claims)

    def release(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            for claim in claims:
                if self._held.get(claim.connection.id) == claim.connection.fence:
                    del self._held[claim.connection.id]

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed.wait(self._lease.total_seconds() / 3):
            with self._lock:
                held = dict(self._held)
            if held:
                self._renew(held)

    def _renew(self, held: dict[UUID, int]) -> None:
        try:
            renew(self._database, held, until=utc_now() + self._lease)
        except SQLAlchemyError as exc:  # then the leases run out and the fence keeps us from harm
            log.warning("lease.not_renewed", connections=len(held), reason=type(exc).__name__)
