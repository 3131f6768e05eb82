"""Running a step for many connections at once: claim, call, record; no transaction is open in between."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import func
from sqlmodel import col, select

from foundation.database import utc_now
from models import AttemptOutcome, Connection, State, Step
from worker.errors import InternalError, NotFoundError, PausedError, ProvisioningError, RateLimitedError
from worker.outage import wake_parked
from worker.retry import retry_delay
from worker.rows.claims import claim, note_intent
from worker.rows.record import record
from worker.runtime import Runtime
from worker.steps import poll
from worker.steps.capture import capture
from worker.steps.create import Creating, create, facts_after_error
from worker.steps.remove import remove
from worker.steps.update import update
from worker.steps.verdict import Claim, Verdict, verdict_on_error

log = structlog.get_logger()

SHARED_COMMIT_S: Final = 0.05
"""How long a finished call waits for neighbours to share its commit with."""

Result = tuple[Claim, Verdict]


@dataclass(slots=True)
class StepRun:
    """What running a step asks the queue for next."""

    due: dict[Step, list[UUID]] = field(default_factory=dict)
    """Connections whose next step is due at once."""
    to_retry: list[UUID] = field(default_factory=list)
    retry_in: timedelta = timedelta(0)


def run_step(runtime: Runtime, step: Step, ids: Sequence[UUID], *, task_id: str | None = None) -> StepRun:
    """Do this step for those of the connections that are due for it and free."""
    with runtime.database.write() as session:
        claims = claim(
            session,
            ids,
            step,
            now=utc_now(),
            lease=runtime.lease,
            policy=runtime.policy,
            task_id=task_id,
        )
    outcome = StepRun()
    if len(claims) < len(ids):
        log.debug("step.skipped", step=step, connections=len(ids) - len(claims), reason="not due or not free")
    if not claims:
        return outcome
    with runtime.leases.holding(claims):
        work = _poll_all if step is Step.POLL else _call_all
        for results in work(runtime, step, claims):
            _record(runtime, step, results, outcome)
    return outcome


def _record(runtime: Runtime, step: Step, results: Sequence[Result], outcome: StepRun) -> None:
    with runtime.database.write() as session:
        recorded = record(session, step, results, now=utc_now())
        has_success = any(verdict.outcome is AttemptOutcome.SUCCEEDED for _, verdict in results)
        if has_success and runtime.outage.is_over():
            log.info("outage.ended", woken=wake_parked(session, now=utc_now()))
    runtime.leases.release([claim for claim, _ in results])
    for done in recorded:
        if done.due_step is not None:
            outcome.due.setdefault(done.due_step, []).append(done.connection.id)
    for claimed, verdict in results:
        if verdict.is_retry and verdict.wait is not None:
            outcome.to_retry.append(claimed.connection.id)
            outcome.retry_in = max(outcome.retry_in, verdict.wait)
        _log(step, claimed, verdict)


def _call_all(runtime: Runtime, step: Step, claims: Sequence[Claim]) -> Iterator[list[Result]]:
    """Call for each claim, in as many threads as there are connections; yield results as they come in."""
    call = _CALLS[step]
    pending: set[Future[Result]] = {runtime.calls.submit(_guarded, runtime, step, call, c) for c in claims}
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        if pending:
            time.sleep(SHARED_COMMIT_S)
            more, pending = wait(pending, timeout=0)
            done |= more
        yield [future.result() for future in done]


def _guarded(runtime: Runtime, step: Step, call: "StepCall", claimed: Claim) -> Result:
    """One call with its log context; what the outside world does wrong becomes a verdict."""
    with structlog.contextvars.bound_contextvars(**_context(step, claimed)):
        try:
            runtime.gate.check()
            return claimed, call(runtime, claimed)
        except ProvisioningError as exc:
            return claimed, _on_error(runtime, step, claimed, exc)
        except Exception as exc:  # noqa: BLE001  # a mistake of ours must cost no other row anything
            return claimed, _on_mistake(runtime, step, claimed, exc)


def _on_mistake(runtime: Runtime, step: Step, claimed: Claim, exc: Exception) -> Verdict:
    log.exception("step.broken", exc_info=exc)
    return _on_error(runtime, step, claimed, InternalError(type(exc).__name__))


def _on_error(runtime: Runtime, step: Step, claimed: Claim, error: ProvisioningError) -> Verdict:
    runtime.outage.failed(error)
    if isinstance(error, RateLimitedError) and not isinstance(error, PausedError):
        runtime.gate.pause(retry_delay(claimed.connection.attempts, retry_after_s=error.retry_after_s))
    if isinstance(error, NotFoundError) and step is Step.UPDATE:
        return poll.judge_missing(claimed, error, now=utc_now(), health_pace=runtime.health_pace)
    verdict = verdict_on_error(claimed, error, runtime.policy)
    if step is Step.CREATE:
        return replace(verdict, facts=facts_after_error(claimed, error))
    return verdict


def _poll_all(runtime: Runtime, step: Step, claims: Sequence[Claim]) -> Iterator[list[Result]]:
    """Read all syncs together and judge each."""
    try:
        runtime.gate.check()
    except PausedError as exc:
        yield [(claimed, _on_error(runtime, step, claimed, exc)) for claimed in claims]
        return
    watched = _watched(runtime, poll.due_streams(claims))
    reads = runtime.portal.call(poll.read_syncs, claims, watched, runtime.async_api)
    yield [(claimed, _judged(runtime, claimed, read)) for claimed, read in reads]


def _judged(runtime: Runtime, claimed: Claim, read: poll.Read) -> Verdict:
    now, pace = utc_now(), runtime.health_pace
    if isinstance(read, NotFoundError):
        return poll.judge_missing(claimed, read, now=now, health_pace=pace)
    if isinstance(read, ProvisioningError):
        return _on_error(runtime, Step.POLL, claimed, read)
    try:
        return poll.judge(claimed, read, now=now, health_pace=pace)
    except Exception as exc:  # noqa: BLE001  # as in `_guarded`
        with structlog.contextvars.bound_contextvars(**_context(Step.POLL, claimed)):
            return _on_mistake(runtime, Step.POLL, claimed, exc)


def _watched(runtime: Runtime, stream_ids: set[str]) -> dict[str, int]:
    """How many syncs each of these streams has, as far as we know."""
    if not stream_ids:
        return {}
    stream = col(Connection.remote_stream_id)
    with runtime.database.read() as session:
        rows = session.exec(select(stream, func.count()).where(stream.in_(stream_ids)).group_by(stream))
        return {str(stream_id): count for stream_id, count in rows}


def _context(step: Step, claimed: Claim) -> dict[str, object]:
    connection = claimed.connection
    return {
        "step": str(step),
        "connection_id": str(connection.id),
        "tenant_id": str(connection.tenant_id),
        "attempt": connection.attempts,
        "correlation_id": connection.correlation_id,
    }


def _log(step: Step, claimed: Claim, verdict: Verdict) -> None:
    if not verdict.is_eventful and verdict.outcome is AttemptOutcome.SUCCEEDED:
        return
    facts = _context(step, claimed) | {"why": verdict.why, "task_id": claimed.task_id}
    if verdict.problem is None:
        log.info("step.done", to=verdict.move, **facts)
    else:
        log.warning("step.failed", to=verdict.move, code=verdict.problem.code, **facts)


StepCall = Callable[[Runtime, Claim], Verdict]


def _create(runtime: Runtime, claimed: Claim) -> Verdict:
    def intend(claimed: Claim, at: object) -> None:
        del at
        note_intent(runtime.database, claimed, utc_now())

    return create(
        claimed,
        Creating(runtime.api, runtime.plans, runtime.streams, settle=runtime.settle, note_intent=intend),
    )


def _is_shared(runtime: Runtime, claimed: Claim, credential_id: str) -> bool:
    others = select(func.count()).where(
        col(Connection.remote_credential_id) == credential_id,
        col(Connection.id) != claimed.connection.id,
        col(Connection.state).not_in([State.REMOVING, State.REMOVED]),
    )
    with runtime.database.read() as session:
        return session.exec(others).one() > 0


def _remove(runtime: Runtime, claimed: Claim) -> Verdict:
    def is_shared(credential_id: str) -> bool:
        return _is_shared(runtime, claimed, credential_id)

    return remove(claimed, runtime.api, settle=runtime.settle, is_shared=is_shared)


_CALLS: Final[dict[Step, StepCall]] = {
    Step.CAPTURE: lambda runtime, claimed: capture(claimed, runtime.api, runtime.vault),
    Step.CREATE: _create,
    Step.UPDATE: lambda runtime, claimed: update(claimed, runtime.api, runtime.plans),
    Step.REMOVE: _remove,
}
