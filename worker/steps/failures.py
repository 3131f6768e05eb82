"""What a failed try means: try again soon, try again slowly, or fail with a reason a person can act on."""

from datetime import datetime, timedelta

from models import AttemptOutcome, Lane, State, Step
from worker.errors import PausedError, ProvisioningError, RateLimitedError, TransientError
from worker.policy import RetryPolicy
from worker.queue.verdict import Claim, Problem, Verdict
from worker.retry import jittered, retry_delay

BEFORE_THE_SYNC = frozenset({Step.CAPTURE, Step.CREATE})


def verdict_on_error(
    claim: Claim, error: ProvisioningError, policy: RetryPolicy, *, now: datetime, is_incident: bool
) -> Verdict:
    """Transient: soon at first, then at a slow pace. Refused: again for a while, then `failed`.

    In an incident, when many tenants are refused at once, nobody is called failed.
    """
    if isinstance(error, PausedError):
        return _put_off(claim, error)
    problem = Problem(error.code, str(error), error.advice)
    if isinstance(error, TransientError):
        return _try_again(claim, error, problem, policy)
    if _lasts(claim, policy, now) and not is_incident:
        return _give_up(claim, problem, policy)
    return Verdict(
        did=f"refused: {problem.code}",
        why=problem.code,
        wait=jittered(max(policy.refusal_lasts / policy.refusals, timedelta(seconds=1))),
        problem=problem,
        outcome=AttemptOutcome.TRANSIENT,
        is_refusal=True,
    )


def _lasts(claim: Claim, policy: RetryPolicy, now: datetime) -> bool:
    """A refused change is told at once and fails nothing, so that it only slows down; that needs no time."""
    if claim.lane is Lane.CHANGES:
        return claim.attempts >= policy.refusals
    return policy.is_lasting(refusals=claim.attempts, since=claim.refused_at, now=now)


def _put_off(claim: Claim, error: PausedError) -> Verdict:
    """Nothing was sent because calls are limited: that is told by the limits, not by every connection."""
    return Verdict(
        did="put off by the API's limit",
        why="put off",
        wait=retry_delay(claim.attempts, retry_after_s=error.retry_after_s),
        outcome=AttemptOutcome.TRANSIENT,
        is_eventful=claim.step is Step.CREATE,  # whose intent is to be taken back
        is_counted=False,
        tells=False,
    )


def _try_again(claim: Claim, error: TransientError, problem: Problem, policy: RetryPolicy) -> Verdict:
    is_limited = isinstance(error, RateLimitedError)  # a limit is no reason to park, however long it lasts
    parked = not is_limited and not error.retry_after_s and claim.attempts >= policy.max_attempts
    wait = (
        jittered(policy.parked_pace)
        if parked
        else retry_delay(claim.attempts, retry_after_s=error.retry_after_s)
    )
    return Verdict(
        did=f"{'parked' if parked else 'to retry'}: {problem.code}",
        why=f"parked after {claim.attempts} attempts" if parked else "to be tried again",
        wait=wait,
        problem=problem,
        outcome=AttemptOutcome.TRANSIENT,
        is_counted=not error.retry_after_s,
    )


def _give_up(claim: Claim, problem: Problem, policy: RetryPolicy) -> Verdict:
    """A refused removal stays a removal, and a working sync that is refused a change stays watched."""
    return Verdict(
        did=f"failed: {problem.code}",
        why=problem.code,
        move=State.FAILED if claim.step in BEFORE_THE_SYNC else None,
        wait=jittered(policy.parked_pace),
        problem=problem,
        outcome=AttemptOutcome.PERMANENT,
        is_refusal=True,
    )
