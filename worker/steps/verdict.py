"""What a step comes to: a value that says what is true now, where the connection moves, when to look next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from foundation.database import utc_now
from models import AttemptOutcome, Connection, State, Tenant
from worker.errors import ProvisioningError, TransientError
from worker.retry import jittered, retry_delay

NOW: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Claim:
    """A row as it was when this worker took it. Not attached to any database session."""

    connection: Connection
    tenant: Tenant
    earlier_create_at: datetime | None = None
    """When an earlier try may have sent a create whose outcome we never learnt."""
    started_at: datetime = field(default_factory=utc_now)
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for people: a code to search for, a sentence, and what to do."""

    code: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one try. `wait` of None: nothing is due until an event says otherwise."""

    why: str
    move: State | None = None
    wait: timedelta | None = NOW
    facts: Mapping[str, object] = field(default_factory=dict)
    """Columns of the connection and what they are now, kept even if the move has been overtaken."""
    problem: Problem | None = None
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED
    is_eventful: bool = True
    """Whether it is worth a row in the history of attempts."""
    is_counted: bool = True
    """Whether it brings the connection nearer to being parked."""

    @property
    def is_retry(self) -> bool:
        return self.outcome is AttemptOutcome.TRANSIENT


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try, and the slow pace for a connection that has used up its attempts."""

    max_attempts: int
    parked_pace: timedelta


def verdict_on_error(claim: Claim, error: ProvisioningError, policy: RetryPolicy) -> Verdict:
    """Transient: try again, soon at first, then at a slow pace. Permanent: only a person can help."""
    problem = Problem(error.code, str(error), error.advice)
    if isinstance(error, TransientError):
        return _try_again(claim.connection, error, problem, policy)
    return _give_up(claim.connection, problem, policy)


def _try_again(
    connection: Connection, error: TransientError, problem: Problem, policy: RetryPolicy
) -> Verdict:
    was_told_when = bool(error.retry_after_s)  # who is told to come back later does not wear out
    parked = not was_told_when and connection.attempts >= policy.max_attempts
    wait = (
        jittered(policy.parked_pace)
        if parked
        else retry_delay(connection.attempts, retry_after_s=error.retry_after_s)
    )
    why = f"parked after {connection.attempts} attempts" if parked else "to be tried again"
    return Verdict(
        why=why,
        wait=wait,
        problem=problem,
        outcome=AttemptOutcome.TRANSIENT,
        is_counted=not was_told_when,
    )


def _give_up(connection: Connection, problem: Problem, policy: RetryPolicy) -> Verdict:
    """A refused removal stays a removal, and a working sync that is refused a change stays watched."""
    state = connection.state
    failed = state in {State.REQUESTED, State.CAPTURED, State.BACKFILLING, State.DEGRADED}
    return Verdict(
        why=problem.code,
        move=State.FAILED if failed else None,
        wait=None if failed else jittered(policy.parked_pace),
        problem=problem,
        outcome=AttemptOutcome.PERMANENT,
    )
