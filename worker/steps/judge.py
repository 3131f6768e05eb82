"""What the state of a sync means for its connection: where it moves and when to look again."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from models import AttemptOutcome, State
from worker.errors import NotFoundError
from worker.management import RemoteSync
from worker.policy import RetryPolicy
from worker.queue.verdict import Claim, Problem, Verdict
from worker.retry import backfill_poll_delay, jittered

CONFIRM_S: Final = 5.0
"""How soon a refusal or a missing sync is looked at again."""
FOLLOWED_MIN_S: Final = 30.0
"""A sync that the feed of changes tells about is read by itself at most this often."""

IsIncident = Callable[[Claim], bool]
"""Whether many tenants of this connection's provider are refused at the same time."""


@dataclass(frozen=True, slots=True)
class Paces:
    """How often a sync is read by itself."""

    health: timedelta
    """Of a ready sync, where no feed tells of changes."""
    slow: timedelta
    """Of a failed one."""
    is_followed: bool = False
    """Whether a feed of the API tells which syncs changed."""

    def calm(self) -> timedelta | None:
        """For a sync that needs no attention; None where the feed will tell."""
        return None if self.is_followed else jittered(self.health)

    def busy(self, age: timedelta) -> timedelta:
        """For a sync whose backfill or trouble has lasted this long."""
        wait = backfill_poll_delay(age)
        return max(wait, jittered(timedelta(seconds=FOLLOWED_MIN_S))) if self.is_followed else wait


def judge(
    claim: Claim,
    sync: RemoteSync,
    *,
    now: datetime,
    paces: Paces,
    policy: RetryPolicy,
    is_incident: IsIncident | None,
) -> Verdict:
    """Judge one look at a sync. A credential must be refused for a while before its connection fails.

    Where it is not known whether there is an incident, nobody is called failed by this look.
    """
    if sync.health.blames_credential and sync.status != "disabled":
        return _refused(claim, sync, now=now, paces=paces, policy=policy, is_incident=is_incident)
    target, why, problem = _target(claim, sync)
    facts = _facts(claim, sync)
    is_eventful = bool(target is not claim.state or facts or _code(problem) != claim.error_code)
    return Verdict(
        did=str(target) if target is not claim.state else "looked at",
        why=why,
        move=target if target is not claim.state else None,
        wait=_wait(claim, target, now, paces),
        facts=facts,
        problem=problem,
        is_eventful=is_eventful,
    )


def judge_missing(claim: Claim, error: NotFoundError, *, paces: Paces) -> Verdict:
    """The API does not know the sync: somebody may have deleted it. It is looked for again all the same."""
    can_degrade = claim.state in {State.BACKFILLING, State.READY}
    is_news = claim.error_code != "sync_vanished" and claim.state is not State.FAILED
    return Verdict(
        did="sync vanished",
        why="sync vanished",
        move=State.DEGRADED if can_degrade else None,
        wait=jittered(timedelta(seconds=CONFIRM_S) if is_news else paces.health),
        facts={"health": None} if is_news else {},
        problem=Problem(
            code="sync_vanished",
            message=f"the Management API no longer knows the sync: {error}",
            advice="Send credential.provided to have it created again, or tenant.deleted to let it go.",
        ),
        outcome=AttemptOutcome.PERMANENT if is_news else AttemptOutcome.SUCCEEDED,
        is_eventful=is_news,
    )


def _wait(claim: Claim, target: State, now: datetime, paces: Paces) -> timedelta | None:
    if target in {State.READY, State.PAUSED}:
        return paces.calm()
    if target is State.FAILED:
        return jittered(paces.slow)
    return paces.busy(now - (claim.backfill_started_at or now))


def _facts(claim: Claim, sync: RemoteSync) -> dict[str, object]:
    """What is new about the sync."""
    facts: dict[str, object] = {}
    if sync.health.status != claim.health:
        facts["health"] = sync.health.status
    completed_at = sync.initial_backfill_completed_at
    if completed_at is not None and completed_at != claim.initial_backfill_completed_at:
        facts["initial_backfill_completed_at"] = completed_at
    return facts


def _target(claim: Claim, sync: RemoteSync) -> tuple[State, str, Problem | None]:
    state, health = claim.state, sync.health
    if sync.status == "disabled":
        return State.PAUSED, "the sync is disabled", None
    if health.status == "error" or (health.is_bad and state in {State.READY, State.DEGRADED}):
        return _unhealthy(state, sync)
    if health.is_good and sync.initial_backfill_completed_at is not None:
        return State.READY, "healthy and backfilled", None
    if state is State.READY:
        return State.READY, "still backfilled", None
    return State.BACKFILLING, "the initial backfill runs", _noted(sync) if health.is_bad else None


def _unhealthy(state: State, sync: RemoteSync) -> tuple[State, str, Problem | None]:
    target = {State.PAUSED: State.BACKFILLING, State.FAILED: State.FAILED}.get(state, State.DEGRADED)
    return target, f"the sync reports {sync.health.status}", _noted(sync)


def _refused(
    claim: Claim,
    sync: RemoteSync,
    *,
    now: datetime,
    paces: Paces,
    policy: RetryPolicy,
    is_incident: IsIncident | None,
) -> Verdict:
    """Nobody fails by one refusal, nor while the provider refuses many tenants at once."""
    lasts = policy.is_lasting(refusals=claim.attempts, since=claim.refused_at, now=now)
    incident = None if is_incident is None else is_incident(claim)
    fails = claim.state is State.FAILED or (claim.state is State.DEGRADED and lasts and incident is False)
    rests = fails or (lasts and incident is True and paces.is_followed)  # the feed tells when it ends
    degraded = State.BACKFILLING if claim.state is State.PAUSED else State.DEGRADED
    target = State.FAILED if fails else degraded
    is_news = target is not claim.state
    problem = Problem(
        code="credential_rejected",
        message=sync.health.message or "the provider refuses the credential",
        advice="Ask the customer for a working credential and send it as credential.provided.",
    )
    return Verdict(
        did=f"{target}: {problem.code}" if is_news else "still refused",
        why="the provider refuses the credential",
        move=target if is_news else None,
        wait=jittered(paces.slow if rests else _confirmation(claim, policy)),
        facts=_facts(claim, sync),
        problem=problem,
        outcome=AttemptOutcome.PERMANENT if is_news and fails else AttemptOutcome.SUCCEEDED,
        is_eventful=is_news or claim.error_code != problem.code,
        is_refusal=True,
    )


def _confirmation(claim: Claim, policy: RetryPolicy) -> timedelta:
    """Often enough to believe a refusal as soon as it has lasted, then ever more slowly, up to a minute."""
    share = policy.refusal_lasts / (policy.refusals + 1)
    growing = timedelta(seconds=min(CONFIRM_S * 1.5 ** min(claim.attempts, 10), 60.0))
    return (
        max(min(share, growing), timedelta(milliseconds=500))
        if claim.attempts <= policy.refusals
        else growing
    )


def _noted(sync: RemoteSync) -> Problem:
    part = f" ({sync.health.part})" if sync.health.part else ""
    return Problem(
        code=f"sync_{sync.health.status}",
        message=sync.health.message or f"the sync reports {sync.health.status}{part}",
        advice="Watched and recovers by itself when the provider does; look at the sync if it lasts.",
    )


def _code(problem: Problem | None) -> str | None:
    return problem.code if problem else None
