"""Recording: what a step found becomes true, in one short transaction, unless the row has moved on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlmodel import Session, col, select

from foundation.database import storable
from models import Attempt, AttemptOutcome, Connection, State, Step, Tenant
from worker.redaction import redact
from worker.rows.locks import in_lock_order
from worker.rows.wishes import heed
from worker.steps.verdict import Claim, Problem, Verdict

log = structlog.get_logger()

MAX_MESSAGE: Final = 2_000
RETRY_GRACE = timedelta(seconds=3)
HINT_GRACE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one row: the step it asks for next, if that is due at once."""

    connection: Connection
    due_step: Step | None


def record(
    session: Session, step: Step, results: Sequence[tuple[Claim, Verdict]], *, now: datetime
) -> list[Recorded]:
    """Write the outcomes. A row that was taken over is left alone: its new holder knows better."""
    ids = [claim.connection.id for claim, _ in results]
    statement = in_lock_order(session, select(Connection).where(col(Connection.id).in_(ids)))
    rows = {row.id: row for row in session.exec(statement.with_for_update(of=Connection))}
    recorded = []
    for claim, verdict in results:
        row = rows.get(claim.connection.id)
        if row is None or row.fence != claim.connection.fence:
            log.warning("step.overtaken", step=step, connection_id=str(claim.connection.id))
            continue
        recorded.append(_record_one(session, step, row, claim, verdict, now))
    return recorded


def _record_one(
    session: Session, step: Step, row: Connection, claim: Claim, verdict: Verdict, now: datetime
) -> Recorded:
    overtaken = row.revision != claim.connection.revision
    if verdict.is_eventful or verdict.outcome is not AttemptOutcome.SUCCEEDED:
        session.add(_attempt(step, row, claim, verdict, now))
    _apply_facts(row, claim, verdict)
    _apply_problem(row, verdict)
    _apply_wait(row, verdict, now, overtaken=overtaken)
    if overtaken:
        tenant = session.get_one(Tenant, row.tenant_id)
        session.add_all(heed(tenant, row, now=now, task_id=claim.task_id))
    elif verdict.move is not None:
        session.add(row.transition_to(verdict.move, why=verdict.why, task_id=claim.task_id))
        _go_on_if_wanted_again(session, row, now, claim)
    row.leased_until = None
    row.updated_at = now
    due = row.due_at is not None and row.due_at <= now
    if due or verdict.is_retry:
        row.hinted_until = max(row.due_at or now, now) + (RETRY_GRACE if verdict.is_retry else HINT_GRACE)
    return Recorded(row, row.next_step if due else None)


def _apply_facts(row: Connection, claim: Claim, verdict: Verdict) -> None:
    for column, value in verdict.facts.items():
        if column == "sealed_credential" and row.sealed_credential != claim.connection.sealed_credential:
            continue  # a newer credential arrived meanwhile and is still to be captured
        setattr(row, column, value)


def _apply_problem(row: Connection, verdict: Verdict) -> None:
    if verdict.problem is None:
        row.forget_error()
    else:
        row.error_code = verdict.problem.code
        row.error_message = _said(verdict.problem)
        row.error_advice = verdict.problem.advice
    if not verdict.is_retry:
        row.attempts = 0
    elif not verdict.is_counted:
        row.attempts = max(row.attempts - 1, 0)


def _said(problem: Problem) -> str:
    """Others had a hand in it: nothing in there may harm us, whether by being secret or by being odd."""
    return redact(storable(problem.message, max_length=MAX_MESSAGE))


def _apply_wait(row: Connection, verdict: Verdict, now: datetime, *, overtaken: bool) -> None:
    if overtaken:
        row.due_at = now
    else:
        row.due_at = None if verdict.wait is None else now + verdict.wait


def _go_on_if_wanted_again(session: Session, row: Connection, now: datetime, claim: Claim) -> None:
    """A tenant that signed up again while its old connection was being removed goes on from here."""
    if row.state is State.REMOVED:
        tenant = session.get_one(Tenant, row.tenant_id)
        session.add_all(heed(tenant, row, now=now, task_id=claim.task_id))


def _attempt(step: Step, row: Connection, claim: Claim, verdict: Verdict, now: datetime) -> Attempt:
    return Attempt(
        connection_id=row.id,
        tenant_id=row.tenant_id,
        step=step,
        number=claim.connection.attempts,
        started_at=claim.started_at,
        finished_at=now,
        outcome=verdict.outcome,
        error_code=verdict.problem.code if verdict.problem else None,
        error_message=_said(verdict.problem) if verdict.problem else None,
        task_id=claim.task_id,
    )
