"""When to try again: bounded, jittered, and as the server asks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.retry import (
    BASE_S,
    CAP_S,
    JITTER,
    MAX_RETRY_AFTER_S,
    POLL_MAX_S,
    POLL_MIN_S,
    backfill_poll_delay,
    jittered,
    parse_retry_after,
    retry_delay,
)

ATTEMPTS = st.integers(min_value=-1, max_value=10**9)
LUCK = st.floats(min_value=0, max_value=1, exclude_max=True)
WAITS = st.floats(min_value=0, max_value=1e12, exclude_min=True)
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NO_WAIT = ["0", "-5", "0.0", "Mon, 04 May 2026 11:59:00 GMT", "Mon, 04 May 2026 12:00:00 GMT"]
"""What a server may say that means: come back at once."""


@given(ATTEMPTS, LUCK)
def test_backoff_is_bounded(attempt: int, luck: float) -> None:
    """However often it failed, the wait is neither nothing nor endless."""
    assert BASE_S / 10 <= retry_delay(attempt, rand=lambda: luck).total_seconds() <= CAP_S


@given(st.integers(min_value=1, max_value=100), LUCK)
def test_ceiling_never_falls(attempt: int, luck: float) -> None:
    """With the same luck a later attempt never waits for less."""
    assert retry_delay(attempt, rand=lambda: luck) <= retry_delay(attempt + 1, rand=lambda: luck)


@given(ATTEMPTS, WAITS, LUCK)
def test_server_wins(attempt: int, wait: float, luck: float) -> None:
    """What the server asks for is kept, with at most a tenth on top, up to an hour."""
    delay = retry_delay(attempt, retry_after_s=wait, rand=lambda: luck).total_seconds()
    asked = max(min(wait, MAX_RETRY_AFTER_S), BASE_S / 10)

    assert asked * 0.999 <= delay <= asked * (1 + JITTER) * 1.001 + 1e-6


@pytest.mark.parametrize("header", NO_WAIT)
def test_server_that_asks_for_no_wait_gets_the_backoff(header: str) -> None:
    """A `Retry-After` of zero, or of a moment that has passed, never makes a tight loop: the waits grow."""
    asked = parse_retry_after(header, now=NOW)

    waits = [retry_delay(n, retry_after_s=asked, rand=lambda: 0.5).total_seconds() for n in range(1, 9)]

    assert asked == 0
    assert waits == [retry_delay(n, rand=lambda: 0.5).total_seconds() for n in range(1, 9)]
    assert waits == sorted(waits)
    assert len(set(waits)) == 7
    assert min(waits) >= BASE_S / 10
    assert waits[-1] == CAP_S / 2


@given(ATTEMPTS)
def test_no_luck_leaves_a_floor(attempt: int) -> None:
    """The shortest wait that chance may give is still a wait."""
    assert retry_delay(attempt, retry_after_s=0.0, rand=lambda: 0.0).total_seconds() >= BASE_S / 10


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("0.25", 0.25),
        ("Mon, 04 May 2026 12:01:00 GMT", 60),
        ("Mon, 04 May 2026 12:01:00", 60),
        ("nan", None),
        ("inf", None),
        ("soon", None),
    ],
)
def test_both_forms_of_the_header_are_read(header: str | None, seconds: float | None) -> None:
    """A number of seconds or an HTTP date; what is neither asks for nothing."""
    assert parse_retry_after(header, now=NOW) == seconds


@given(st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=4000)), LUCK)
def test_poll_is_bounded(age: timedelta, luck: float) -> None:
    """Whatever the age, also one before the beginning, the next look is within seconds and minutes."""
    delay = backfill_poll_delay(age, rand=lambda: luck).total_seconds()

    assert POLL_MIN_S * (1 - JITTER) <= delay <= POLL_MAX_S * (1 + JITTER)


@given(st.timedeltas(timedelta(0), timedelta(days=2)), st.timedeltas(timedelta(0), timedelta(days=2)), LUCK)
def test_older_backfills_are_polled_no_more_often(one: timedelta, other: timedelta, luck: float) -> None:
    """With the same luck an older backfill is never looked at sooner."""
    young, old = sorted((one, other))

    assert backfill_poll_delay(young, rand=lambda: luck) <= backfill_poll_delay(old, rand=lambda: luck)


@given(st.timedeltas(timedelta(0), timedelta(days=2)), LUCK)
def test_jitter_is_a_tenth(interval: timedelta, luck: float) -> None:
    """Jitter moves an interval by a tenth at most, either way."""
    delay = jittered(interval, rand=lambda: luck).total_seconds()

    assert abs(delay - interval.total_seconds()) <= interval.total_seconds() * JITTER + 1e-5


@given(st.text(max_size=40))
def test_any_header_is_read(value: str) -> None:
    """Any text is seconds, a date, or nothing; never an error and never a wait below zero."""
    seconds = parse_retry_after(value)

    assert seconds is None or seconds >= 0
