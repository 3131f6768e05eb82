"""Judging a sync: every combination of state, status, health and completion has a verdict that is allowed."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from models import AttemptOutcome, State
from models.lifecycle import ALLOWED_TRANSITIONS, WATCHED
from tests.support.rows import NOW, a_claim, a_connection, a_tenant
from worker.errors import NotFoundError
from worker.management import RemoteSync
from worker.policy import RetryPolicy
from worker.queue.verdict import Claim, Verdict
from worker.steps.judge import Paces, judge, judge_missing

PACE = timedelta(minutes=5)
SLOW = timedelta(minutes=15)
PACES = Paces(PACE, SLOW)
FOLLOWED = Paces(PACE, SLOW, is_followed=True)
POLICY = RetryPolicy(8, SLOW)
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


def a_watched(state: State, *, attempts: int = 1, **columns: Any) -> Claim:
    with_sync = {"remote_sync_id": "s"} | columns
    return a_claim(a_connection(a_tenant(), state=state, **with_sync), attempts=attempts)


def verdict_of(
    state: State,
    health: Any,
    /,
    *,
    completed: bool,
    status: str = "active",
    paces: Paces = PACES,
    is_incident: bool = False,
    **columns: Any,
) -> Verdict:
    sync = RemoteSync.model_validate(
        {
            "id": "s",
            "status": status,
            "health": health,
            "initial_backfill_completed_at": COMPLETED if completed else None,
        }
    )
    claim = a_watched(state, **columns)
    return judge(claim, sync, now=NOW, paces=paces, policy=POLICY, is_incident=lambda _claim: is_incident)


EVERYTHING = list(
    itertools.product(sorted(WATCHED), ["active", "disabled", "paused", ""], HEALTHS.values(), [False, True])
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

    assert all(len(str(verdict.facts.get("health"))) <= 64 for verdict in verdicts)
    assert all(len(verdict.problem.code) <= 64 for verdict in verdicts if verdict.problem)


def test_every_combination_is_looked_at_again() -> None:
    """Every connection has a next look within bounds, a failed one at the slow pace."""
    for state, status, health, completed in EVERYTHING:
        verdict = verdict_of(state, health, completed=completed, status=status)
        assert verdict.wait is not None
        is_failed = (verdict.move or state) is State.FAILED
        assert timedelta(seconds=0.5) <= verdict.wait <= (SLOW if is_failed else PACE) * 1.2


def test_feed_spares_the_looks_at_what_is_well() -> None:
    """Where the API tells of changes only what is in motion or in trouble is read by itself, and rarely."""
    calm = {State.READY, State.PAUSED}
    for state, status, health, completed in EVERYTHING:
        verdict = verdict_of(state, health, completed=completed, status=status, paces=FOLLOWED)
        if (verdict.move or state) in calm:
            assert verdict.wait is None
        elif not verdict.is_refusal:
            assert verdict.wait is not None
            assert verdict.wait >= timedelta(seconds=27)


B, R, D, P, F = State.BACKFILLING, State.READY, State.DEGRADED, State.PAUSED, State.FAILED

MOVES = [
    # health, completed: where a connection goes from backfilling, ready, degraded, paused and failed
    ("healthy", True, [R, R, R, R, R]),
    ("ok", True, [R, R, R, R, R]),
    ("text", True, [R, R, R, R, R]),
    ("healthy", False, [B, R, B, B, B]),
    ("initializing", False, [B, R, B, B, B]),
    ("initializing", True, [B, R, B, B, B]),
    ("warning", False, [B, D, D, B, B]),
    ("warning", True, [B, D, D, B, B]),
    ("gen1 provider warns", True, [B, D, D, B, B]),
    ("error", False, [D, D, D, B, F]),
    ("error", True, [D, D, D, B, F]),
    ("credential refused", False, [D, D, D, B, F]),
    ("gen1 credential", False, [D, D, D, B, F]),
    ("unknown word", False, [B, R, B, B, B]),
    ("unknown word", True, [B, R, B, B, B]),
    ("none", True, [R, R, R, R, R]),
]


@pytest.mark.parametrize(("health", "completed", "landing"), MOVES)
def test_where_a_connection_goes(health: str, completed: bool, landing: list[State]) -> None:
    """Ready takes good health and a complete backfill; trouble degrades; nobody fails by one refusal."""
    states = (B, R, D, P, F)

    assert [verdict_of(state, HEALTHS[health], completed=completed).move or state for state in states] == (
        landing
    )


LONG = NOW - POLICY.refusal_lasts
JUST_NOW = NOW - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("attempts", "since", "is_incident", "landed"),
    [
        (1, None, False, D),
        (POLICY.refusals, JUST_NOW, False, D),
        (POLICY.refusals - 1, LONG, False, D),
        (POLICY.refusals, LONG, False, F),
        (POLICY.refusals, LONG, True, D),
        (100, NOW - timedelta(hours=5), True, D),
    ],
)
def test_refusal_must_last_to_be_believed(
    attempts: int, since: datetime | None, is_incident: bool, landed: State
) -> None:
    """A credential has failed after some refusals over some minutes, unless many tenants are refused."""
    verdict = verdict_of(
        D,
        HEALTHS["credential refused"],
        completed=True,
        attempts=attempts,
        refused_at=since,
        is_incident=is_incident,
    )

    assert (verdict.move or D) is landed
    assert verdict.is_refusal


@pytest.mark.parametrize("state", [B, R])
def test_what_worked_a_moment_ago_only_degrades(state: State) -> None:
    """Whatever the counters say, a connection that was not degraded yet does not fail at once."""
    verdict = verdict_of(
        state, HEALTHS["credential refused"], completed=True, attempts=99, refused_at=NOW - PACE
    )

    assert verdict.move is D


def test_refusal_is_confirmed_soon_and_then_ever_more_slowly() -> None:
    """A refusal is believed as soon as it has lasted, without a read each second until then."""
    refused = HEALTHS["credential refused"]
    waits = [
        verdict_of(D, refused, completed=True, attempts=n, refused_at=NOW, is_incident=True).wait
        for n in range(1, 20)
    ]

    seconds = [wait.total_seconds() for wait in waits if wait is not None]
    assert len(seconds) == 19
    assert seconds[0] <= 9
    assert sum(seconds[: POLICY.refusals]) <= POLICY.refusal_lasts.total_seconds()
    assert all(50 <= wait <= 66 for wait in seconds[10:])


@pytest.mark.parametrize(("health", "completed", "back"), [("healthy", True, R), ("initializing", False, B)])
def test_failed_connection_recovers_with_its_sync(health: str, completed: bool, back: State) -> None:
    """Nobody has to send anything: a sync that works again takes its connection along, without the error."""
    verdict = verdict_of(F, HEALTHS[health], completed=completed, error_code="credential_rejected")

    assert verdict.move is back
    assert verdict.problem is None


@pytest.mark.parametrize("state", [B, R, D, P, F])
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
    """A look that finds everything as it was is not worth a write."""
    at = datetime.fromisoformat(COMPLETED)
    known = {"health": "healthy", "initial_backfill_completed_at": at}

    assert not verdict_of(R, HEALTHS["healthy"], completed=True, **known).is_eventful
    assert verdict_of(R, HEALTHS["healthy"], completed=True, **known, error_code="x").is_eventful
    assert verdict_of(B, HEALTHS["healthy"], completed=True).is_eventful


def test_completion_once_seen_is_not_forgotten() -> None:
    """An API that loses the completion date later does not take ours away."""
    at = NOW - timedelta(days=1)

    verdict = verdict_of(R, HEALTHS["healthy"], completed=False, initial_backfill_completed_at=at)

    assert "initial_backfill_completed_at" not in verdict.facts


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
    verdict = judge_missing(a_watched(state), NotFoundError(404, "Not found"), paces=PACES)

    assert verdict.move is target
    assert verdict.problem is not None
    assert verdict.problem.code == "sync_vanished"
    assert verdict.outcome is AttemptOutcome.PERMANENT
    assert verdict.wait is not None


def test_failed_connection_keeps_its_own_reason() -> None:
    """Why it failed is what its owner must know; that its sync is gone by now changes nothing about that."""
    claim = a_watched(F, error_code="credential_rejected")

    verdict = judge_missing(claim, NotFoundError(404, "Not found"), paces=PACES)

    assert (verdict.move, verdict.is_eventful, verdict.leaves_attempt) == (None, False, False)
    assert verdict.wait is not None


@pytest.mark.parametrize("paces", [PACES, FOLLOWED])
def test_lasting_refusal_is_looked_at_slowly_under_a_feed(paces: Paces) -> None:
    """The feed tells when the refusal ends; without one it is looked at once a minute."""
    verdict = verdict_of(
        D,
        HEALTHS["credential refused"],
        completed=True,
        paces=paces,
        is_incident=True,
        attempts=20,
        refused_at=NOW - timedelta(hours=1),
    )

    assert verdict.move is None
    assert verdict.wait is not None
    assert (verdict.wait > timedelta(minutes=10)) is paces.is_followed


@pytest.mark.parametrize("paces", [PACES, FOLLOWED])
def test_vanished_sync_is_told_once(paces: Paces) -> None:
    """A sync that stays away leaves one attempt in the history, and is looked for at a calm pace."""
    claim = a_watched(D, error_code="sync_vanished", health=None)

    verdict = judge_missing(claim, NotFoundError(404, "Not found"), paces=paces)

    assert not verdict.is_eventful
    assert verdict.wait is not None
    assert verdict.wait >= PACE * 0.9
