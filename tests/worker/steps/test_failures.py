"""What a failed try means for its connection: soon again, slowly again, or failed with a reason."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from models import AttemptOutcome, State, Step
from tests.support.rows import NOW, a_claim, a_connection, a_tenant
from worker.errors import (
    ApiRejectedError,
    ApiUnavailableError,
    PlanError,
    ProvisioningError,
    RateLimitedError,
    StillUncertainError,
    TransientError,
)
from worker.policy import RetryPolicy
from worker.queue.verdict import Claim, Verdict
from worker.steps.failures import verdict_on_error

PARKED = timedelta(minutes=15)
POLICY = RetryPolicy(8, PARKED)
STATE_OF = {
    Step.CAPTURE: State.REQUESTED,
    Step.CREATE: State.CAPTURED,
    Step.POLL: State.READY,
    Step.UPDATE: State.READY,
    Step.REMOVE: State.REMOVING,
}


def a_try(step: Step, attempts: int = 1, refused_at: datetime | None = None) -> Claim:
    connection = a_connection(a_tenant(), state=STATE_OF[step], refused_at=refused_at)
    return a_claim(connection, step=step, attempts=attempts)


def on(claim: Claim, error: ProvisioningError, *, is_incident: bool = False) -> Verdict:
    return verdict_on_error(claim, error, POLICY, now=NOW, is_incident=is_incident)


@pytest.mark.parametrize("step", Step)
def test_transient_trouble_is_tried_again_soon(step: Step) -> None:
    """At first within seconds, with the problem told, and without a move."""
    verdict = on(a_try(step), ApiUnavailableError("503: boom"))

    assert verdict.move is None
    assert verdict.wait is not None
    assert verdict.wait <= timedelta(seconds=1)
    assert verdict.problem is not None
    assert verdict.problem.code == "api_unavailable"


def test_trouble_that_lasts_parks() -> None:
    """After its attempts a row is tried at the slow pace."""
    before = on(a_try(Step.CAPTURE, POLICY.max_attempts - 1), ApiUnavailableError("boom"))
    after = on(a_try(Step.CAPTURE, POLICY.max_attempts), ApiUnavailableError("boom"))

    assert before.wait is not None
    assert after.wait is not None
    assert before.wait <= timedelta(minutes=1) < PARKED * 0.9 <= after.wait
    assert after.why == "parked after 8 attempts"


@pytest.mark.parametrize("error", [RateLimitedError, ApiUnavailableError, StillUncertainError])
def test_told_wait_is_kept_and_not_counted(error: type[TransientError]) -> None:
    """Who waits as told is not worn out by it."""
    verdict = on(a_try(Step.CREATE, 100), error("wait", retry_after_s=30))

    assert not verdict.is_counted
    assert verdict.wait is not None
    assert 30 <= verdict.wait.total_seconds() <= 33


@pytest.mark.parametrize("retry_after_s", [None, 0.0])
def test_limit_without_a_wait_backs_off_and_never_parks(retry_after_s: float | None) -> None:
    """`Retry-After: 0` for a minute: neither a tight loop nor fifteen minutes of silence."""
    verdicts = [
        on(a_try(Step.CREATE, n), RateLimitedError("429", retry_after_s=retry_after_s)) for n in range(1, 60)
    ]

    assert all(verdict.is_counted for verdict in verdicts), "so that the wait grows"
    waits = [verdict.wait.total_seconds() for verdict in verdicts if verdict.wait is not None]
    assert len(waits) == 59
    assert all(0.1 <= wait <= 60 for wait in waits)
    assert sum(waits[10:]) / len(waits[10:]) > 10


@pytest.mark.parametrize("step", [Step.CAPTURE, Step.CREATE])
@pytest.mark.parametrize("error", [ApiRejectedError(422, "no"), PlanError("no plan")], ids=repr)
def test_refusal_must_last_before_a_connection_fails(step: Step, error: ProvisioningError) -> None:
    """A refused step is tried some more times over some minutes; then the connection fails."""
    first = on(a_try(step, 1), error)
    quick = on(a_try(step, 9, NOW - timedelta(seconds=5)), error)
    lasting = on(a_try(step, POLICY.refusals, NOW - POLICY.refusal_lasts), error)

    assert (first.move, quick.move) == (None, None)
    assert first.is_refusal
    assert first.wait is not None
    assert POLICY.refusals * first.wait <= POLICY.refusal_lasts * 1.2
    assert lasting.move is State.FAILED
    assert lasting.outcome is AttemptOutcome.PERMANENT


def test_nobody_fails_in_an_incident() -> None:
    """While many tenants of one provider are refused, the cause is not theirs."""
    claim = a_try(Step.CAPTURE, 50, NOW - timedelta(hours=1))

    assert on(claim, ApiRejectedError(422, "no"), is_incident=True).move is None


@pytest.mark.parametrize("step", [Step.POLL, Step.UPDATE, Step.REMOVE])
def test_refusal_after_the_sync_exists_fails_nothing(step: Step) -> None:
    """A working sync that is refused a change goes on; a refused removal stays one, at the slow pace."""
    verdict = on(a_try(step, 99, NOW - timedelta(days=1)), ApiRejectedError(422, "no"))

    assert verdict.move is None
    assert verdict.wait is not None
    assert verdict.wait >= PARKED * 0.9


def test_refused_change_slows_down() -> None:
    """A refused change is told at once, and then asked again for no more often than what is parked."""
    claim = a_try(Step.UPDATE)
    waits = [on(replace(claim, attempts=n), ApiRejectedError(422, "no")).wait for n in range(1, 6)]

    assert [wait is not None and wait >= PARKED * 0.9 for wait in waits] == [False, False, True, True, True]
