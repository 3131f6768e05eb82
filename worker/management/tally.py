"""Counting the calls of one run, however many runs share the client."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class CallTally:
    """How many calls were sent."""

    calls: int = 0


_current: ContextVar[CallTally | None] = ContextVar("call_tally", default=None)


@contextmanager
def counting(tally: CallTally) -> Iterator[None]:
    """Count the calls of this block, and of the tasks that it starts."""
    token = _current.set(tally)
    try:
        yield
    finally:
        _current.reset(token)


def count_call() -> None:
    tally = _current.get()
    if tally is not None:
        tally.calls += 1
