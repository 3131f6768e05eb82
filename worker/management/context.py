"""On whose behalf a call is made: the run that counts it, and the correlation id that travels with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class CallTally:
    """How many calls a run has sent."""

    calls: int = 0


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
    """Count a call that is about to be sent; returns its correlation id."""
    current = _current.get()
    if current is None:
        return None
    tally, correlation_id = current
    tally.calls += 1
    return correlation_id
