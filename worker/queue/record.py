"""Recording: what a step found becomes true, in one short transaction, unless the row has moved on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Row, Table, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlmodel import Session

from foundation.database import new_id, storable
from models import AttemptOutcome, Connection, Lane, Move, State, Step, Tenant, Work
from models.lifecycle import WITH_SYNC, InvalidTransitionError, check_transition, next_step
from worker.errors import InternalError
from worker.queue.desired import apply_desired, wanted_steps
from worker.queue.verdict import Claim, Key, Problem, Verdict
from worker.queue.writes import Values, Writes
from worker.redaction import redact

log = structlog.get_logger()

MAX_MESSAGE: Final = 2_000
UNRECORDABLE_WAIT: Final = timedelta(minutes=1)
BROKEN: Final = (
    InvalidTransitionError,
    DataError,
    IntegrityError,
    StatementError,
    TypeError,  # what follows comes from the drivers: no JSON
    ValueError,  # half a character
    OverflowError,  # a number that SQLite cannot hold
)
"""Errors that one row's values cause. A lost connection or a lock time-out concerns the whole batch."""

_work: Final[Table] = Work.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
_connection: Final[Table] = Connection.__table__  # type: ignore[attr-defined]
_tenant: Final[Table] = Tenant.__table__  # type: ignore[attr-defined]

Result = tuple[Claim, Verdict]


@dataclass(frozen=True, slots=True)
class Onward:
    """Rows that go on with their next step at once, under the lease that they have."""

    step: Step
    lease: timedelta


@dataclass(slots=True)
class Recorded:
    """What became of a batch."""

    results: list[Result]
    """Those that were recorded; rows that other workers have taken over are not among them."""
    onward: list[Claim]
    """Claims of the rows that go on."""


def record(
    session: Session, results: Sequence[Result], *, now: datetime, onward: Onward | None = None
) -> Recorded:
    """Write the outcomes of a batch. A row that cannot be recorded costs no other row anything.

    A row that was taken over is left alone: its new holder knows better.
    """
    try:
        with session.begin_nested():
            return _record_all(session, results, now, onward)
    except BROKEN as exc:
        if _concerns_all(exc):
            raise
        recorded = Recorded([], [])
        for result in sorted(results, key=lambda each: each[0].connection_id):
            _record_alone(session, result, now, onward, recorded)
        return recorded


def _record_alone(
    session: Session, result: Result, now: datetime, onward: Onward | None, recorded: Recorded
) -> None:
    """Record one row in a savepoint of its own; what cannot be recorded becomes a mistake of ours."""
    try:
        with session.begin_nested():
            one = _record_all(session, [result], now, onward)
    except BROKEN as exc:
        if _concerns_all(exc):
            raise
        claim, verdict = result
        # without the words of the error, which may quote a customer's data
        log.error(  # noqa: TRY400
            "step.not_recorded",
            step=claim.step,
            connection_id=str(claim.connection_id),
            external_id=claim.external_id,
            reason=type(exc).__name__,
        )
        one = _record_all(session, [(claim, _unrecordable(verdict, exc))], now, None)
    recorded.results += one.results
    recorded.onward += one.onward


def _unrecordable(verdict: Verdict, exc: Exception) -> Verdict:
    reason = f"the outcome could not be recorded ({type(exc).__name__}): {verdict.why}"
    return Verdict(
        did="to retry: internal_error",
        why="to be tried again",
        wait=UNRECORDABLE_WAIT,
        problem=Problem(InternalError.code, reason, InternalError.advice),
        outcome=AttemptOutcome.TRANSIENT,
    )


def _concerns_all(exc: Exception) -> bool:
    return isinstance(exc, DBAPIError) and not isinstance(exc, DataError | IntegrityError)


def _record_all(
    session: Session, results: Sequence[Result], now: datetime, onward: Onward | None
) -> Recorded:
    # a change that is wanted meanwhile is only found by looking at the connection
    quiet = [each for each in results if not each[1].is_eventful and each[0].lane is Lane.LIFECYCLE]
    eventful = [each for each in results if each[1].is_eventful or each[0].lane is Lane.CHANGES]
    recorded = Recorded([], [])
    writes = Writes()
    rows = _locked(session, [claim for claim, _ in eventful]) if eventful else {}
    fences = _fences(session, results) if eventful else {}
    returned = _signed_up_again(
        session, [claim for claim, verdict in eventful if _is_removal_done(claim, verdict)]
    )
    for claim, verdict in eventful:
        row = rows.get(claim.connection_id)
        if row is None or fences.get(claim.key) != claim.fence:
            log.warning("step.overtaken", step=claim.step, connection_id=str(claim.connection_id))
            continue
        recorded.results.append((claim, verdict))
        is_overtaken = row.revision != claim.revision or row.state is not claim.state
        if is_overtaken or claim.tenant_id in returned:
            _record_overtaken(session, row, claim, verdict, now, writes)
        else:
            recorded.onward += _record_one(row, claim, verdict, now, onward, writes)
    for claim, verdict in quiet:  # only the work row says when to look again, if it is still ours
        writes.work(claim, _freed(claim, verdict, claim.step, now))
    recorded.results += quiet
    writes.write(session, now=now)
    return recorded


def _locked(session: Session, claims: Sequence[Claim]) -> Mapping[UUID, "Row[Any]"]:
    """The connections as they are now, locked in the one order that everyone locks connections in."""
    current = (
        select(
            _connection.c.id,
            _connection.c.state,
            _connection.c.revision,
            _connection.c.applied_revision,
            _connection.c.sealed_credential,
            _connection.c.refused_at,
            _connection.c.ready_at,
        )
        .where(_connection.c.id.in_([claim.connection_id for claim in claims]))
        .order_by(_connection.c.id)
        .with_for_update(key_share=True)  # history rows of others refer to these rows
    )
    return {row.id: row for row in session.execute(current)}


def _fences(session: Session, results: Sequence[Result]) -> Mapping[Key, int]:
    """The fences of all work of these connections, locked after the connections and in one order too."""
    current = (
        select(_work.c.connection_id, _work.c.lane, _work.c.fence)
        .where(_work.c.connection_id.in_([claim.connection_id for claim, _ in results]))
        .order_by(_work.c.connection_id, _work.c.lane)
        .with_for_update()
    )
    return {(row.connection_id, row.lane): row.fence for row in session.execute(current)}


def _signed_up_again(session: Session, removals: Sequence[Claim]) -> set[UUID]:
    """The tenants that are not to be removed any more: their removed connections start anew at once."""
    if not removals:
        return set()
    back = select(_tenant.c.id).where(
        _tenant.c.id.in_({claim.tenant_id for claim in removals}), _tenant.c.is_removed.is_(False)
    )
    return set(session.scalars(back))


def _record_one(
    row: "Row[Any]", claim: Claim, verdict: Verdict, now: datetime, onward: Onward | None, writes: Writes
) -> list[Claim]:
    """Collect what changes; returns the claim of the next step if the row goes on."""
    values = _facts(row, verdict, claim) | _problem(row, claim, verdict, now)
    target = verdict.move or claim.state
    if verdict.move is not None:
        check_transition(claim.state, verdict.move)
        writes.moves.append(_move(claim, verdict.move, verdict.why, now))
        values |= _moved(row, verdict.move, values, now)
    if verdict.leaves_attempt:
        writes.attempts.append(_attempt(claim, verdict, now))
    sync_id = values.get("remote_sync_id", claim.remote_sync_id)
    step = claim.step if claim.lane is Lane.CHANGES else next_step(target, has_sync=sync_id is not None)
    if target in WITH_SYNC and _is_outdated(row, verdict, claim):
        writes.want_update(claim)
    if claim.lane is Lane.CHANGES and verdict.move is not None:
        writes.look_now(claim)
    goes_on = onward is not None and step is onward.step and verdict.move is not None
    if goes_on and onward is not None:
        values |= {"create_sent_at": now} if step is Step.CREATE else {}
        writes.work(claim, _kept(claim, step, now + onward.lease))
    else:
        writes.work(claim, _freed(claim, verdict, step, now))
    if values:
        writes.connection(claim.connection_id, values)
    return [_next_claim(claim, step, values, now)] if goes_on and step is not None else []


def _is_outdated(row: "Row[Any]", verdict: Verdict, claim: Claim) -> bool:
    """Whether a wanted change is still to be sent and no row of work says so.

    That is so for a sync just created, and for a connection that was failed when the change was wanted.
    """
    if claim.lane is Lane.CHANGES:
        return False
    applied = verdict.facts.get("applied_revision", row.applied_revision)
    is_back = verdict.move is not None and claim.state not in WITH_SYNC
    return applied != row.revision and is_back


def _record_overtaken(
    session: Session, row: "Row[Any]", claim: Claim, verdict: Verdict, now: datetime, writes: Writes
) -> None:
    """An event changed what is wanted meanwhile: the facts are kept, the move is not."""
    facts = _facts(row, verdict, claim)
    if facts:
        session.execute(update(_connection).where(_connection.c.id == claim.connection_id).values(facts))
    if verdict.leaves_attempt:
        writes.attempts.append(_attempt(claim, verdict, now))
    connection = session.get_one(Connection, claim.connection_id, populate_existing=True)
    tenant = session.get_one(Tenant, claim.tenant_id)
    if connection.state is claim.state and _is_removal_done(claim, verdict):
        writes.moves.append(connection.transition_to(State.REMOVED, why=verdict.why, task_id=claim.task_id))
    writes.moves += apply_desired(tenant, connection, task_id=claim.task_id)
    session.flush()
    step, update_step = wanted_steps(connection)
    mine = step if claim.lane is Lane.LIFECYCLE else update_step
    again = replace(verdict, wait=timedelta(0), outcome=AttemptOutcome.SUCCEEDED, is_refusal=False)
    writes.work(claim, _freed(claim, again, mine, now))
    if claim.lane is Lane.LIFECYCLE and update_step is not None:
        writes.want_update(claim)


def _is_removal_done(claim: Claim, verdict: Verdict) -> bool:
    """A removal is done whatever was wished meanwhile: a new signup starts from there."""
    return claim.step is Step.REMOVE and verdict.move is State.REMOVED


def _facts(row: "Row[Any]", verdict: Verdict, claim: Claim) -> Values:
    """What is true now; a newer credential that arrived meanwhile is still to be captured."""
    facts = dict(verdict.facts)
    if row.sealed_credential != claim.sealed_credential:
        facts.pop("sealed_credential", None)
    return facts


def _problem(row: "Row[Any]", claim: Claim, verdict: Verdict, now: datetime) -> Values:
    """What to tell people. A refused change is told beside the state, which goes on without it."""
    problem = verdict.problem
    if not verdict.tells:
        return {}
    if claim.lane is Lane.CHANGES:
        told = None if problem is None else _told(problem)
        return {"change_problem": told} if told else {}
    if problem is None:
        return dict.fromkeys(("error_code", "error_message", "error_advice", "refused_at"))
    told = _told(problem)
    return {
        "error_code": told["code"],
        "error_message": told["message"],
        "error_advice": told["advice"],
        "refused_at": (row.refused_at or now) if verdict.is_refusal else None,
    }


def _told(problem: Problem) -> dict[str, str]:
    """Others had a hand in the message: nothing in there may be secret, or too odd to be stored."""
    message = storable(redact(problem.message), max_length=MAX_MESSAGE)
    return {"code": problem.code, "message": message, "advice": problem.advice}


def _moved(row: "Row[Any]", target: State, values: Values, now: datetime) -> Values:
    moved: Values = {"state": target, "updated_at": now}
    if target is State.READY and row.ready_at is None and "ready_at" not in values:
        moved["ready_at"] = now
    return moved


def _freed(claim: Claim, verdict: Verdict, step: Step | None, now: datetime) -> Values:
    """The work row without its lease, due again when the verdict says so."""
    is_due = step is not None and verdict.wait is not None
    due_at = now + verdict.wait if is_due and verdict.wait is not None else None
    return {
        "step": step or claim.step,
        "due_at": due_at,
        "turn_at": due_at,
        "leased_until": None,
        "attempts": _attempts(claim, verdict),
        "lost_leases": 0,
    }


def _kept(claim: Claim, step: Step | None, until: datetime) -> Values:
    """The work row under its lease, for the next step."""
    return {
        "step": step or claim.step,
        "due_at": until,
        "turn_at": until,
        "leased_until": until,
        "attempts": 1,
        "lost_leases": 0,
    }


def _attempts(claim: Claim, verdict: Verdict) -> int:
    if not verdict.is_retry and not verdict.is_refusal:
        return 0
    return claim.attempts if verdict.is_counted else max(claim.attempts - 1, 0)


def _next_claim(claim: Claim, step: Step, values: Values, now: datetime) -> Claim:
    return replace(
        claim,
        step=step,
        state=values["state"],
        sealed_credential=values.get("sealed_credential", claim.sealed_credential),
        remote_credential_id=values.get("remote_credential_id", claim.remote_credential_id),
        attempts=1,
        refused_at=None,
        error_code=None,
        started_at=now,
        claimed_s=time.monotonic(),
    )


def _move(claim: Claim, target: State, why: str, now: datetime) -> Move:
    return Move(
        connection_id=claim.connection_id,
        tenant_id=claim.tenant_id,
        from_state=claim.state,
        to_state=target,
        why=why,
        attempt=claim.attempts,
        task_id=claim.task_id,
        at=now,
    )


def _attempt(claim: Claim, verdict: Verdict, now: datetime) -> Values:
    told = _told(verdict.problem) if verdict.problem else None
    return {
        "id": new_id(),
        "connection_id": claim.connection_id,
        "tenant_id": claim.tenant_id,
        "step": claim.step,
        "number": claim.attempts,
        "started_at": claim.started_at,
        "finished_at": now,
        "outcome": verdict.outcome,
        "error_code": told["code"] if told else None,
        "error_message": told["message"] if told else None,
        "task_id": claim.task_id,
    }
