"""In which order the syncs last changed, for those who ask what has changed since."""

import heapq
import time
from bisect import bisect_right
from typing import Final

FEW: Final = 1_000


class Changes:
    """A number for each change; a sync is listed once, at its newest."""

    def __init__(self) -> None:
        self._last = 0
        self._newest: dict[str, int] = {}
        self._log: list[tuple[int, str]] = []
        self._deleted_at: dict[str, float] = {}
        self._expected: list[tuple[float, str]] = []

    def note(self, sync_id: str) -> None:
        """Note that a sync has changed."""
        self._last += 1
        self._newest[sync_id] = self._last
        self._log.append((self._last, sync_id))
        if len(self._log) > 2 * len(self._newest) + FEW:
            self._log = [entry for entry in self._log if self._is_newest(entry)]

    def note_deleted(self, sync_id: str) -> None:
        """Note that a sync is gone."""
        self._deleted_at[sync_id] = time.time()
        self.note(sync_id)

    def expect(self, sync_id: str, at: float) -> None:
        """A sync will look different from then on, without a request: its backfill is complete."""
        heapq.heappush(self._expected, (at, sync_id))

    def since(self, cursor: int, limit: int, now: float) -> tuple[list[str], int, bool]:
        """Return the syncs that changed after a cursor, the cursor behind them, and whether more follow."""
        self._arrive(now)
        start = bisect_right(self._log, cursor, key=lambda entry: entry[0])
        found: list[str] = []
        for index in range(start, len(self._log)):
            if not self._is_newest(self._log[index]):
                continue
            if len(found) == limit:
                return found, cursor, True
            cursor = self._log[index][0]
            found.append(self._log[index][1])
        return found, max(cursor, self._last), False

    def deleted_at(self, sync_id: str) -> float | None:
        """Return when a sync was deleted, if it was."""
        return self._deleted_at.get(sync_id)

    def knows(self, cursor: int) -> bool:
        """Tell whether a cursor was given out."""
        return 0 <= cursor <= self._last

    def _is_newest(self, entry: tuple[int, str]) -> bool:
        return self._newest[entry[1]] == entry[0]

    def _arrive(self, now: float) -> None:
        """A backfill that was stopped meanwhile is noted as well; one change too many does no harm."""
        while self._expected and self._expected[0][0] <= now:
            self.note(heapq.heappop(self._expected)[1])
