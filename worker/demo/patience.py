"""Patience that watches progress, not the clock: a slow run that still moves is not given up."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

State = TypeVar("State")


class Patience(Generic[State]):
    """Ends when nothing has changed for so many seconds, however long the whole takes."""

    def __init__(self, still_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._still_s = still_s
        self._clock = clock
        self._changed_at = clock()
        self._seen: State | None = None

    def is_over(self, state: State) -> bool:
        """Look at the state as it is now; true if it has been the same for too long."""
        if state != self._seen:
            self._seen, self._changed_at = state, self._clock()
        return self._clock() - self._changed_at > self._still_s
