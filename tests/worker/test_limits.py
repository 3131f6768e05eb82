"""The limits: one bucket, one pause and one breaker for all workers, by Redis's clock; open without Redis."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import fakeredis
import pytest
import redis
import time_machine

from foundation.broker import redis_client
from worker.limits import (
    LONGEST_ASKED_S,
    OPEN_AFTER_FAILURES,
    OPEN_AFTER_S,
    OPEN_AFTER_TENANTS,
    PROBE_MAX_S,
    PROBE_S,
    RAMP_FROM,
    RAMP_S,
    RAMP_TO,
    Allowance,
    Breaker,
    LimitsState,
    RedisLimits,
    pause_asked_for,
)

AT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MANY = [f"tenant_{n}" for n in range(OPEN_AFTER_FAILURES)]
PLENTY = 1_000
REFUSED = "redis://127.0.0.1:1/0"


class Clock:
    """The clock of this host and of the Redis in memory, which stands still until it is told to go on."""

    def __init__(self, traveller: Any) -> None:
        self._traveller = traveller

    def tick(self, seconds: float) -> None:
        self._traveller.shift(timedelta(seconds=seconds))


@pytest.fixture
def clock() -> Iterator[Clock]:
    with time_machine.travel(AT, tick=False) as traveller:
        yield Clock(traveller)


@pytest.fixture
def worker(redis_server: fakeredis.FakeRedis, clock: Clock) -> RedisLimits:
    """One worker's limits: ten calls a second, twenty at once."""
    return RedisLimits(redis_server, rate=10, burst=20)


@pytest.fixture
def other(redis_server: fakeredis.FakeRedis) -> RedisLimits:
    """Another worker's, on the same Redis."""
    return RedisLimits(redis_server, rate=10, burst=20)


@pytest.fixture
def unlimited(redis_server: fakeredis.FakeRedis, clock: Clock) -> RedisLimits:
    """Limits without a rate."""
    return RedisLimits(redis_server)


def bounded(calls: int, wait_s: float = 0.0) -> Allowance:
    """So many calls, and not one more."""
    return Allowance(calls, wait_s, is_bounded=True)


def test_without_a_rate_everything_is_allowed(unlimited: RedisLimits) -> None:
    """Only a pause or an outage holds calls back then."""
    assert unlimited.reserve(PLENTY) == Allowance(PLENTY)
    assert unlimited.state() == LimitsState(Breaker.CLOSED, 0.0, None)


def test_bucket_is_shared(worker: RedisLimits, other: RedisLimits) -> None:
    """What one worker takes, another one has no more; whoever comes too late is told how long to wait."""
    assert worker.reserve(15) == bounded(15)
    assert other.reserve(15) == bounded(5)
    assert worker.reserve(1) == bounded(0, 0.1)
    assert other.state().tokens == 0


def test_bucket_fills_with_time_up_to_the_burst(
    worker: RedisLimits, other: RedisLimits, clock: Clock
) -> None:
    """Ten a second come in, and never more than twenty wait."""
    worker.reserve(20)

    clock.tick(0.55)
    assert other.reserve(PLENTY) == bounded(5)
    clock.tick(0.051)
    assert worker.reserve(PLENTY) == bounded(1)  # the half was kept
    clock.tick(3600)
    assert other.reserve(PLENTY) == bounded(20)


def test_rate_holds_over_many_workers(redis_server: fakeredis.FakeRedis, clock: Clock) -> None:
    """However many workers ask, and however often, no more than burst and rate together are allowed."""
    workers = [RedisLimits(redis_server, rate=50, burst=10) for _ in range(8)]

    allowed = 0
    for _ in range(100):
        allowed += sum(each.reserve(7).calls for each in workers)
        clock.tick(0.1)

    assert 10 + 50 * 9.8 <= allowed <= 10 + 50 * 10


@pytest.mark.parametrize(("rate", "burst"), [(0.2, 1), (3.5, 4), (10, 10)])
def test_burst_is_a_second_by_default(
    redis_server: fakeredis.FakeRedis, clock: Clock, rate: float, burst: int
) -> None:
    """Unless told otherwise, as many calls begin at once as one second brings, and at least one."""
    assert RedisLimits(redis_server, rate=rate).reserve(PLENTY).calls == burst


def test_slow_rate_says_how_long_to_wait(redis_server: fakeredis.FakeRedis, clock: Clock) -> None:
    """At one call in five seconds the next one is five seconds away, and allowed then."""
    slow = RedisLimits(redis_server, rate=0.2)
    slow.reserve(1)

    wait_s = slow.reserve(1).wait_s
    clock.tick(wait_s)

    assert wait_s == pytest.approx(5, abs=0.01)
    assert slow.reserve(1).calls == 1


def test_what_was_not_used_is_given_back(worker: RedisLimits, other: RedisLimits) -> None:
    """A batch that needed fewer calls leaves them to others."""
    worker.reserve(20)

    worker.give_back(12)

    assert other.reserve(PLENTY) == bounded(12)


def test_more_calls_than_reserved_are_a_debt(worker: RedisLimits, other: RedisLimits, clock: Clock) -> None:
    """Calls beyond the reservation are paid back before anybody calls again."""
    worker.reserve(20)

    worker.give_back(-10)

    assert other.state().tokens == -10
    assert other.reserve(1) == bounded(0, 1.1)
    clock.tick(1.101)
    assert other.reserve(PLENTY) == bounded(1)


def test_giving_back_never_exceeds_the_burst(worker: RedisLimits, other: RedisLimits) -> None:
    """A bucket holds what it holds."""
    worker.give_back(PLENTY)

    assert other.reserve(PLENTY) == bounded(20)


def test_giving_back_without_a_rate_leaves_nothing_behind(
    unlimited: RedisLimits, redis_server: fakeredis.FakeRedis
) -> None:
    """There is no bucket to fill."""
    unlimited.give_back(5)

    assert redis_server.keys() == []


def test_pause_holds_everybody(worker: RedisLimits, other: RedisLimits, clock: Clock) -> None:
    """A 429 told to one worker holds all of them, for as long as it says; no token is lost meanwhile."""
    worker.pause(timedelta(seconds=30))

    assert other.reserve(1) == bounded(0, 30.0)
    assert other.state().paused_for_s == 30
    clock.tick(30)
    assert other.reserve(PLENTY) == bounded(20)


@pytest.mark.parametrize(("second", "wait_s"), [(0.001, 30), (29, 30), (31, 31)])
def test_longest_pause_holds(worker: RedisLimits, other: RedisLimits, second: float, wait_s: float) -> None:
    """A call that was under way and is told to wait less shortens nothing."""
    worker.pause(timedelta(seconds=30))

    other.pause(timedelta(seconds=second))

    assert worker.reserve(1).wait_s == wait_s


def test_pause_and_outage_bound_without_a_rate(unlimited: RedisLimits, clock: Clock) -> None:
    """Where no rate is set, it is the API's trouble that says how many calls may be made."""
    outage(unlimited, clock)
    clock.tick(PROBE_S)
    probe = unlimited.reserve(PLENTY)
    unlimited.pause(timedelta(seconds=30))

    assert probe == bounded(1)
    assert unlimited.reserve(PLENTY) == bounded(0, 30.0)


def test_pause_ends_by_itself(worker: RedisLimits, redis_server: fakeredis.FakeRedis, clock: Clock) -> None:
    """No worker has to live to lift it."""
    worker.pause(timedelta(0))

    clock.tick(0.01)

    assert redis_server.keys() == []


def outage(limits: RedisLimits, clock: Clock) -> None:
    """Everything fails for everybody, for long enough."""
    limits.report(successes=0, failed_tenants=MANY)
    clock.tick(OPEN_AFTER_S)
    limits.report(successes=0, failed_tenants=MANY[:1])


def is_open(limits: RedisLimits) -> bool:
    return limits.state().breaker is Breaker.OPEN


def test_breaker_opens_when_all_fails(worker: RedisLimits, other: RedisLimits, clock: Clock) -> None:
    """Failures of many tenants, and nothing else for a while: the API is away, for all workers."""
    outage(worker, clock)

    assert is_open(other)
    assert other.reserve(PLENTY).calls == 0


def test_breaker_waits_before_it_opens(worker: RedisLimits, clock: Clock) -> None:
    """However many calls fail at one moment, a moment is no outage."""
    for _ in range(10):
        worker.report(successes=0, failed_tenants=MANY)
    clock.tick(OPEN_AFTER_S - 0.1)
    worker.report(successes=0, failed_tenants=MANY)

    assert not is_open(worker)


def test_few_failures_open_nothing(worker: RedisLimits, clock: Clock) -> None:
    """A few failures over a long time, among few calls, are no outage."""
    for n in range(OPEN_AFTER_FAILURES - 1):
        worker.report(successes=0, failed_tenants=[MANY[n]])
        clock.tick(OPEN_AFTER_S)

    assert not is_open(worker)


def test_failures_of_few_tenants_open_nothing(worker: RedisLimits, clock: Clock) -> None:
    """Calls that fail for one or two tenants only may be these tenants' own trouble, however many."""
    for _ in range(5 * OPEN_AFTER_FAILURES):
        worker.report(successes=0, failed_tenants=MANY[: OPEN_AFTER_TENANTS - 1])
        clock.tick(1)

    assert not is_open(worker)


def test_success_between_failures_keeps_it_closed(
    worker: RedisLimits, other: RedisLimits, clock: Clock
) -> None:
    """As long as anything succeeds for anybody, the API works."""
    for _ in range(10):
        worker.report(successes=0, failed_tenants=MANY)
        clock.tick(OPEN_AFTER_S - 1)
        assert not other.report(successes=1, failed_tenants=MANY)

    assert not is_open(worker)


def test_failures_before_a_success_do_not_count(worker: RedisLimits, clock: Clock) -> None:
    """After a success, failures, tenants and time are counted anew."""
    worker.report(successes=0, failed_tenants=MANY)
    clock.tick(OPEN_AFTER_S)
    worker.report(successes=1, failed_tenants=[])

    worker.report(successes=0, failed_tenants=MANY[:2])
    clock.tick(OPEN_AFTER_S)
    for _ in range(OPEN_AFTER_FAILURES):
        worker.report(successes=0, failed_tenants=MANY[:2])

    assert not is_open(worker)


def test_open_breaker_lets_single_calls_through_at_growing_waits(
    worker: RedisLimits, other: RedisLimits, clock: Clock
) -> None:
    """One probe of all workers at a time; the wait for the next one doubles up to its limit."""
    outage(worker, clock)

    waits = []
    for _ in range(6):
        wait_s = other.reserve(PLENTY).wait_s
        waits.append(wait_s)
        clock.tick(wait_s)
        assert worker.reserve(PLENTY) == bounded(1)
        assert other.reserve(PLENTY).calls == 0
        worker.report(successes=0, failed_tenants=MANY[:1])

    assert waits == pytest.approx([PROBE_S, PROBE_S, 4, 8, PROBE_MAX_S, PROBE_MAX_S])


def test_one_success_closes_it_and_says_so_once(
    worker: RedisLimits, other: RedisLimits, clock: Clock
) -> None:
    """The worker that sees the end of the outage is told, and nobody else."""
    outage(worker, clock)

    assert other.report(successes=1, failed_tenants=[])
    assert not is_open(worker)
    assert not worker.report(successes=5, failed_tenants=[])


def test_success_among_failures_closes_it(worker: RedisLimits, clock: Clock) -> None:
    """A batch of which anything succeeded proves that the API works."""
    outage(worker, clock)

    assert worker.report(successes=1, failed_tenants=MANY)


def test_nothing_reported_changes_nothing(worker: RedisLimits, clock: Clock) -> None:
    """A batch without any call says nothing about the API."""
    outage(worker, clock)

    assert not worker.report(successes=0, failed_tenants=[])
    assert is_open(worker)


def test_calls_ramp_up_after_an_outage(unlimited: RedisLimits, clock: Clock) -> None:
    """An API that has just come back gets a few calls, then twice as many each second, then all."""
    outage(unlimited, clock)
    unlimited.report(successes=1, failed_tenants=[])

    allowed = []
    for _ in range(9):
        allowed.append(unlimited.reserve(PLENTY))
        clock.tick(RAMP_S)

    assert [each.calls for each in allowed] == [*(RAMP_FROM * 2**n for n in range(7)), RAMP_TO, PLENTY]
    assert [each.is_bounded for each in allowed] == [True] * 8 + [False]


def test_breaker_opens_again(worker: RedisLimits, clock: Clock) -> None:
    """The next outage is found like the first, and its probes begin at short waits again."""
    outage(worker, clock)
    clock.tick(100)
    worker.reserve(1)
    worker.report(successes=1, failed_tenants=[])
    clock.tick(60)

    outage(worker, clock)

    assert is_open(worker)
    assert worker.reserve(1).wait_s == pytest.approx(PROBE_S)


def test_everything_is_allowed_while_redis_is_away() -> None:
    """A Redis that is down stops no call: the API still says 429 itself."""
    limits = RedisLimits(redis_client(REFUSED), rate=1, burst=1)

    limits.pause(timedelta(seconds=30))
    limits.give_back(5)

    assert limits.reserve(PLENTY) == Allowance(PLENTY)
    assert not limits.report(successes=1, failed_tenants=MANY)
    with pytest.raises(redis.RedisError):
        limits.state()


NOW_S = int(AT.timestamp())
ASKED: dict[str, tuple[dict[str, str], float | None]] = {
    "seconds": ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7),
    "fraction": ({"ratelimit-remaining": "0", "ratelimit-reset": "0.5"}, 0.5),
    "older name": ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "7"}, 7),
    "moment": ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW_S + 20)}, 20),
    "moment that has passed": ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW_S - 20)}, 0.1),
    "at once": ({"ratelimit-remaining": "0", "ratelimit-reset": "0"}, 0.1),
    "endless": ({"ratelimit-remaining": "0", "ratelimit-reset": "99999999"}, LONGEST_ASKED_S),
    "blanks": ({"ratelimit-remaining": " 0 ", "ratelimit-reset": " 7 "}, 7),
    "some are left": ({"ratelimit-remaining": "1", "ratelimit-reset": "7"}, None),
    "no moment": ({"ratelimit-remaining": "0"}, None),
    "nonsense": ({"ratelimit-remaining": "0", "ratelimit-reset": "soon"}, None),
    "not finite": ({"ratelimit-remaining": "0", "ratelimit-reset": "inf"}, None),
    "only one of them usable": (
        {"ratelimit-remaining": "0", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "7"},
        7,
    ),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("headers", "seconds"), ASKED.values(), ids=ASKED.keys())
def test_answers_may_ask_for_a_pause(clock: Clock, headers: dict[str, str], seconds: float | None) -> None:
    """When no request is left, calls stop before the API has to say 429."""
    asked = pause_asked_for(headers)

    assert (asked.total_seconds() if asked else None) == (
        None if seconds is None else pytest.approx(seconds, abs=0.01)
    )
