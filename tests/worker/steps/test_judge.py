"""Judging a sync: every combination of state, status, health and completion has a verdict that is allowed."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from models import AttemptOutcome, State
from models.lifecycle import ALLOWED_TRANSITIONS, WITH_SYNC
from tests.support.rows import NOW, a_claim, a_connection, a_tenant
from worker.errors import NotFoundError
from worker.management import RemoteSync
from worker.steps.poll import judge, judge_missing
from worker.steps.verdict import Claim, Verdict

PACE = timedelta(minutes=5)
COMPLETED = "2026-05-01T00:00:00Z"

HEALTHS: dict[str, Any] = {
    "healthy": {"status": "healthy"},
    "ok": {"status": "ok"},
    "initializing": {"status": "initializing"},
    "warning": {"status": "warning"},
    "error": {"status": "error"},
    "credential refused": {"status": "error", "reason": {"part": "credential", "message": "401"}},
    "gen1 credential": {"status": "error", "credential": {"status": "error", "notes": ["401"]}},
    "gen1 provider warns": {"status": "ok", "provider": {"status": "warn", "notes": ["slow"]}},
    "unknown word": {"status": "meditating"},
    "endless word": {"status": "x" * 10_000},
    "empty": {},
    "none": None,
    "text": "ok",
}


def a_watched(state: State, **columns: Any) -> Claim:
    return a_claim(a_connection(a_tenant(), state=state, **columns))


def verdict_of(
    state: State, health: Any, *, completed: bool, status: str = "active", **columns: Any
) -> Verdict:
    sync = RemoteSync.model_validate(
        {
            "id": "s",
            "status": status,
            "health": health,
            "initial_backfill_completed_at": COMPLETED if completed else None,
        }
    )
    return judge(a_watched(state, **columns), sync, now=NOW, health_pace=PACE)


EVERYTHING = list(
    itertools.product(
        sorted(WITH_SYNC), ["active", "disabled", "paused", ""], HEALTHS.values(), [False, True]
    )
)


def test_every_combination_lands_in_an_allowed_state() -> None:
    """No answer of an API can ask for a move that the lifecycle refuses."""
    refused = [
        (state, status, health, completed, verdict.move)
        for state, status, health, completed in EVERYTHING
        if (verdict := verdict_of(state, health, completed=completed, status=status)).move is not None
        and verdict.move not in ALLOWED_TRANSITIONS[state]
    ]

    assert refused == []


def test_every_combination_fits_the_columns() -> None:
    """Whatever an API says is short enough to be stored."""
    verdicts = [verdict_of(s, h, completed=c, status=x) for s, x, h, c in EVERYTHING]

    assert all(len(str(verdict.facts["health"])) <= 64 for verdict in verdicts)
    assert all(len(verdict.problem.code) <= 64 for verdict in verdicts if verdict.problem)


def test_every_combination_is_looked_at_again_unless_it_failed() -> None:
    """Only a failed connection is left alone; every other has a next look within bounds."""
    for state, status, health, completed in EVERYTHING:
        verdict = verdict_of(state, health, completed=completed, status=status)
        if verdict.move is State.FAILED:
            assert verdict.wait is None
        else:
            assert verdict.wait is not None
            assert timedelta(seconds=0.5) <= verdict.wait <= PACE * 1.2


B, R, D, P, F = State.BACKFILLING, State.READY, State.DEGRADED, State.PAUSED, State.FAILED

MOVES = [
    # health, completed: where a connection goes from backfilling, ready, degraded and paused
    ("healthy", True, R, R, R, R),
    ("ok", True, R, R, R, R),
    ("text", True, R, R, R, R),
    ("healthy", False, B, R, B, B),
    ("initializing", False, B, R, B, B),
    ("initializing", True, B, R, B, B),
    ("warning", False, B, D, D, B),
    ("warning", True, B, D, D, B),
    ("gen1 provider warns", True, B, D, D, B),
    ("error", False, D, D, D, B),
    ("error", True, D, D, D, B),
    ("credential refused", False, F, D, F, B),
    ("gen1 credential", False, F, D, F, B),
    ("unknown word", False, B, R, B, B),
    ("unknown word", True, B, R, B, B),
    ("none", True, R, R, R, R),
]


@pytest.mark.parametrize(("health", "completed", "from_b", "from_r", "from_d", "from_p"), MOVES)
def test_where_a_connection_goes(
    health: str, completed: bool, from_b: State, from_r: State, from_d: State, from_p: State
) -> None:
    """Ready takes good health and a complete backfill; trouble degrades; a refused credential fails."""
    landed = [verdict_of(state, HEALTHS[health], completed=completed).move or state for state in (B, R, D, P)]

    assert landed == [from_b, from_r, from_d, from_p]


@pytest.mark.parametrize("state", [B, R, D, P])
@pytest.mark.parametrize("health", HEALTHS)
def test_disabled_sync_is_paused(state: State, health: str) -> None:
    """A sync that is disabled is paused, whatever its health says."""
    verdict = verdict_of(state, HEALTHS[health], completed=True, status="disabled")

    assert (verdict.move or state) is P
    assert verdict.problem is None


def test_credential_trouble_says_what_to_do() -> None:
    """What the provider said is passed on, with the advice to ask for another credential."""
    verdict = verdict_of(B, HEALTHS["gen1 credential"], completed=False)

    assert verdict.problem is not None
    assert verdict.problem.code == "credential_rejected"
    assert verdict.problem.message == "401"
    assert "credential.provided" in verdict.problem.advice


def test_warning_during_a_backfill_is_noted_without_a_move() -> None:
    """A warning does not stop a backfill, but is seen."""
    verdict = verdict_of(B, HEALTHS["warning"], completed=False)

    assert verdict.move is None
    assert verdict.problem is not None
    assert verdict.problem.code == "sync_warning"


def test_uneventful_poll_leaves_no_history() -> None:
    """Only a move is worth a row in the history of attempts."""
    assert not verdict_of(R, HEALTHS["healthy"], completed=True).is_eventful
    assert verdict_of(B, HEALTHS["healthy"], completed=True).is_eventful


def test_completion_once_seen_is_not_forgotten() -> None:
    """An API that loses the completion date later does not take ours away."""
    at = NOW - timedelta(days=1)

    verdict = verdict_of(R, HEALTHS["healthy"], completed=False, initial_backfill_completed_at=at)

    assert verdict.facts["initial_backfill_completed_at"] == at


@pytest.mark.parametrize(
    ("age", "least", "most"),
    [
        (timedelta(0), 0.9, 1.1),
        (timedelta(seconds=-30), 0.9, 1.1),
        (timedelta(minutes=1), 5.4, 6.6),
        (timedelta(days=3), 270, 330),
    ],
)
def test_backfill_is_looked_at_every_tenth_of_its_age(age: timedelta, least: float, most: float) -> None:
    """Young backfills are watched closely, old ones calmly, and a clock that runs backwards does no harm."""
    verdict = verdict_of(B, HEALTHS["initializing"], completed=False, backfill_started_at=NOW - age)

    assert verdict.wait is not None
    assert least <= verdict.wait.total_seconds() <= most


def test_unknown_start_counts_as_now() -> None:
    """Without a known start the backfill is taken to be new."""
    verdict = verdict_of(B, HEALTHS["initializing"], completed=False, backfill_started_at=None)

    assert verdict.wait is not None
    assert verdict.wait <= timedelta(seconds=1.1)


@pytest.mark.parametrize(("state", "target"), [(B, D), (R, D), (D, None), (P, None)])
def test_vanished_sync_degrades(state: State, target: State | None) -> None:
    """A sync that the API no longer knows degrades what was working; it says so, and stays watched."""
    verdict = judge_missing(a_watched(state), NotFoundError(404, "Not found"), now=NOW, health_pace=PACE)

    assert verdict.move is target
    assert verdict.problem is not None
    assert verdict.problem.code == "sync_vanished"
    assert verdict.outcome is AttemptOutcome.PERMANENT
    assert verdict.wait is not None


def test_polls_are_counted() -> None:
    """Each look is counted and dated."""
    verdict = verdict_of(B, HEALTHS["initializing"], completed=False, polls=4)

    assert verdict.facts["polls"] == 5
    assert isinstance(verdict.facts["polled_at"], datetime)
