"""Patience: a refusal is believed after enough tries and enough time, never after one of the two alone."""

from datetime import datetime, timedelta

import pytest

from tests.support.rows import NOW
from worker.policy import RetryPolicy

POLICY = RetryPolicy(
    max_attempts=8,
    parked_pace=timedelta(minutes=15),
    refusals=3,
    refusal_lasts=timedelta(minutes=2),
)
LONG = NOW - timedelta(minutes=2)
SHORT = LONG + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("refusals", "since", "lasts"),
    [
        (3, LONG, True),
        (99, LONG - timedelta(days=1), True),
        (2, LONG - timedelta(days=1), False),
        (3, SHORT, False),
        (99, NOW, False),
        (99, NOW + timedelta(hours=1), False),
        (99, None, False),
    ],
)
def test_refusal_must_last(refusals: int, since: datetime | None, lasts: bool) -> None:
    """One short moment of a provider fails nobody, nor do two refusals that lie far apart."""
    assert POLICY.is_lasting(refusals=refusals, since=since, now=NOW) is lasts
