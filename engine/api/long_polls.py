"""Long polls wait in bounded numbers and look in threads of their own, so that nobody else waits for them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar
from uuid import UUID

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from engine.errors import TooManyRequestsError

Result = TypeVar("Result")
PER_ORGANIZATION: Final = 50
ALTOGETHER: Final = 500
THREADS: Final = 4
LOOKS_PER_S: Final = 100.0
"""What all polls of a process together may ask of the database."""
LONGEST_PAUSE_S: Final = 0.5
RETRY_AFTER_S: Final = 1


class LongPolls:
    """The polls of one web process; used on its event loop only."""

    def __init__(self, per_organization: int = PER_ORGANIZATION, altogether: int = ALTOGETHER) -> None:
        self._per_organization = per_organization
        self._altogether = altogether
        self._waiting: Counter[UUID] = Counter()
        self._threads = CapacityLimiter(THREADS)

    @property
    def longest_pause_s(self) -> float:
        """How long a poll may rest between two looks: longer the more polls wait."""
        return max(LONGEST_PAUSE_S, self._waiting.total() / LOOKS_PER_S)

    @contextmanager
    def waiting(self, org_id: UUID) -> Iterator[None]:
        """Count a poll as waiting during the block; raises `TooManyRequestsError` when too many do."""
        if self._waiting[org_id] >= self._per_organization or self._waiting.total() >= self._altogether:
            raise TooManyRequestsError("Too many long polls wait at once", RETRY_AFTER_S)
        self._waiting[org_id] += 1
        try:
            yield
        finally:
            self._waiting[org_id] -= 1
            if not self._waiting[org_id]:
                del self._waiting[org_id]

    async def look(self, ask: Callable[[], Result]) -> Result:
        """Ask in one of the polls' own threads."""
        return await run_sync(ask, limiter=self._threads)
