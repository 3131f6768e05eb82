"""On whose behalf a call is made: the run that counts and may stop it, and the id that travels with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from worker.errors import PausedError, RateLimitedError
from worker.retry import retry_delay

BUDGET_WAIT_S = 0.5


@dataclass(slots=True)
class CallTally:
    """How many calls a run has sent, and whether it may send more."""

    calls: int = 0
    budget: int | None = None
    """How many it may send, where the API's limits are shared out."""
    attempts: int = 1
    """How often the run's rows have been tried: the longer an API limits, the longer we wait."""
    paused_for_s: float | None = None
    """Set as soon as one call is told 429: nothing more of the run is sent."""

    def pause(self, error: RateLimitedError) -> None:
        if self.paused_for_s is None:
            wait = retry_delay(self.attempts, retry_after_s=error.retry_after_s)
            self.paused_for_s = wait.total_seconds()


_current: ContextVar[tuple[CallTally, str | None] | None] = ContextVar("call_context", default=None)


@contextmanager
def on_behalf_of(tally: CallTally, correlation_id: str | None = None) -> Iterator[None]:
    """Count the calls of this block, and of the tasks that it starts, and mark them."""
    token = _current.set((tally, correlation_id))
    try:
        yield
    finally:
        _current.reset(token)


def count_call() -> str | None:
    """Count a call that is about to be sent; returns its correlation id. Raises if the run is paused."""
    current = _current.get()
    if current is None:
        return None
    tally, correlation_id = current
    if tally.paused_for_s is not None:
        raise PausedError("calls are paused: the API is limiting", retry_after_s=tally.paused_for_s)
    if tally.budget is not None and tally.calls >= tally.budget:
        raise PausedError("the calls that the limit allows for now are used up", retry_after_s=BUDGET_WAIT_S)
    tally.calls += 1
    return correlation_id


def note_limit(error: RateLimitedError) -> None:
    """Pause the run whose call was told 429, before any call that waits for its turn is sent."""
    current = _current.get()
    if current is not None:
        current[0].pause(error)
