"""The rate limit of a sync, counted where the provider counts: when requests arrive."""

import heapq
import time
from collections.abc import Iterator
from itertools import cycle
from uuid import uuid4

import fakeredis
import pytest
import time_machine
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.backfill.pace import ABANDONED_AFTER_S, SENT_WITHIN_S, SLACK, Pace
from engine.providers.catalogue import RateLimit
from tests.e2e.arrivals import most_in_a_window

BEGAN = 1_767_225_600.0
TEN_A_SECOND = RateLimit(allowed_requests=10, interval=1)
SYNC = uuid4()

Travel = tuple[float, float]
"""How long a request takes to the provider, and its answer back."""


def life(pace: Pace, limit: RateLimit, travels: Iterator[Travel], arrivals: list[float]) -> Iterator[float]:
    """A reading that makes one request after the other; yields how long it does nothing."""
    reading = uuid4()
    while True:
        while wait_s := pace.wait_s(SYNC, reading, limit):
            yield wait_s
        there_s, back_s = next(travels)
        yield there_s
        arrivals.append(time.time() - BEGAN)
        yield back_s
        pace.answered(SYNC, reading)


def arrive(limit: RateLimit, readings: int, requests: int, travels: Iterator[Travel]) -> list[float]:
    """When so many requests arrive, in a time that only we let pass."""
    arrivals: list[float] = []
    pace = Pace(fakeredis.FakeRedis())
    lives = [(BEGAN, number, life(pace, limit, travels, arrivals)) for number in range(readings)]
    with time_machine.travel(BEGAN, tick=False) as clock:
        while len(arrivals) < requests:
            now, number, each = heapq.heappop(lives)
            clock.move_to(now)
            heapq.heappush(lives, (now + next(each), number, each))
    return arrivals


@example(limit=RateLimit(allowed_requests=1, interval=2), readings=1, travels=[(0.0, 0.0)])  # waits of 0.1 µs
@settings(max_examples=20)
@given(
    limit=st.builds(RateLimit, allowed_requests=st.integers(1, 5), interval=st.integers(1, 3)),
    readings=st.integers(1, 8),
    travels=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=20),
)
def test_no_window_sees_more_than_allowed(limit: RateLimit, readings: int, travels: list[Travel]) -> None:
    """However many read, and however long each request is under way."""
    arrivals = arrive(limit, readings, 4 * limit.allowed_requests, cycle(travels))

    assert most_in_a_window(arrivals, limit.interval) <= limit.allowed_requests


@pytest.mark.parametrize("readings", [2, 5, 30])
def test_what_is_allowed_is_used(readings: int) -> None:
    """Requests that take 50 ms leave a twentieth of the allowance unused, and no more."""
    arrivals = arrive(TEN_A_SECOND, readings, 100, cycle([(0.02, 0.03)]))

    assert most_in_a_window(arrivals, 1) == 10
    assert max(arrivals) < 10 * 1.06


def test_readings_take_turns() -> None:
    """Who has to wait is told another moment than those before it."""
    pace, limit = Pace(fakeredis.FakeRedis()), RateLimit(allowed_requests=2, interval=10)
    readings = [uuid4() for _ in range(7)]

    with time_machine.travel(BEGAN, tick=False):
        waits = [pace.wait_s(SYNC, reading, limit) for reading in readings]
        elsewhere = pace.wait_s(uuid4(), readings[0], limit)

    assert waits == pytest.approx([0, 0, *(10 * SLACK * turn for turn in (1, 1, 2, 2, 3))])
    assert elsewhere == 0


def test_a_killed_workers_request_still_counts() -> None:
    """It may have been sent: its place is free an interval after that, or after it must be over if nobody
    takes the reading over."""
    pace, limit = Pace(fakeredis.FakeRedis()), RateLimit(allowed_requests=1, interval=10)
    killed, other = uuid4(), uuid4()

    with time_machine.travel(BEGAN, tick=False) as clock:
        pace.wait_s(SYNC, killed, limit, fence=1)
        clock.shift(5)
        assert pace.wait_s(SYNC, other, limit) == pytest.approx(10 * SLACK)
        assert pace.wait_s(SYNC, killed, limit, fence=2) > 0
        clock.shift(SENT_WITHIN_S + 4.9)
        assert pace.wait_s(SYNC, other, limit) > 0
        clock.shift(0.2)
        assert pace.wait_s(SYNC, killed, limit, fence=3) == 0

        clock.shift(ABANDONED_AFTER_S + 10)
        assert pace.wait_s(SYNC, other, limit) > 0
        clock.shift(0.1)
        assert pace.wait_s(SYNC, other, limit) == 0


def test_a_late_answer_frees_its_own_place_only() -> None:
    """A reading that was begun anew asks again while its old request is under way: each counts for itself."""
    pace, limit = Pace(fakeredis.FakeRedis()), RateLimit(allowed_requests=2, interval=10)
    reading = uuid4()

    with time_machine.travel(BEGAN, tick=False) as clock:
        assert pace.wait_s(SYNC, reading, limit, fence=1) == 0
        assert pace.wait_s(SYNC, reading, limit, fence=2) == 0
        pace.answered(SYNC, reading, fence=1)
        clock.shift(10.1)

        assert [pace.wait_s(SYNC, uuid4(), limit) == 0 for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("earlier_s", "granted"), [(3, 1), (-1, 1), (11, 2)])
def test_what_was_asked_without_a_place_counts(earlier_s: float, granted: int) -> None:
    """One more that somebody else asked on the sync's behalf, unless that was long ago."""
    pace, limit = Pace(fakeredis.FakeRedis()), RateLimit(allowed_requests=2, interval=10)

    waits = [pace.wait_s(SYNC, uuid4(), limit, earlier_s=earlier_s) for _ in range(3)]

    assert waits.count(0) == granted


def test_a_limit_that_is_changed_holds_from_then_on() -> None:
    """What was asked before counts by the new interval and number."""
    pace, reading = Pace(fakeredis.FakeRedis()), uuid4()
    minutely = RateLimit(allowed_requests=3, interval=60)

    with time_machine.travel(BEGAN, tick=False) as clock:
        for _ in range(3):
            pace.wait_s(SYNC, reading, minutely)
            pace.answered(SYNC, reading)
            clock.shift(1)
        fewer = pace.wait_s(SYNC, reading, minutely.model_copy(update={"allowed_requests": 2}))
        assert fewer == pytest.approx(60 * SLACK - 2)
        assert pace.wait_s(SYNC, reading, minutely.model_copy(update={"interval": 2})) == 0
