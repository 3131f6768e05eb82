"""Claiming: of all the messages about a row, and all the workers that read them, one gets to do the step."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlmodel import Session, col, or_, select

from foundation.database import Database
from models import Connection, State, Step, Tenant
from models.lifecycle import WITH_SYNC
from worker.errors import TransientError
from worker.steps.verdict import Claim, RetryPolicy

log = structlog.get_logger()

_STATES: Final = {
    Step.CAPTURE: frozenset({State.REQUESTED}),
    Step.CREATE: frozenset({State.CAPTURED}),
    Step.REMOVE: frozenset({State.REMOVING}),
    Step.POLL: WITH_SYNC,
    Step.UPDATE: WITH_SYNC,
}


class ClaimLostError(TransientError):
    """The row belongs to somebody else by now; whatever we were about to do is theirs to do."""

    code = "claim_lost"
    advice = "Nothing to do: whoever holds the connection now goes on with it."


def claim(
    session: Session,
    ids: Sequence[UUID],
    step: Step,
    *,
    now: datetime,
    lease: timedelta,
    policy: RetryPolicy,
    task_id: str | None = None,
) -> list[Claim]:
    """Take those rows that are due for this step and not held by anybody.

    The attempt is counted here, before the work, so that a row whose work kills its worker is parked too.
    For a create the intent is committed here as well, before anything is sent.
    """
    rows = session.exec(
        select(Connection, Tenant)
        .join(Tenant, col(Tenant.id) == col(Connection.tenant_id))
        .where(
            col(Connection.id).in_(ids),
            col(Connection.state).in_(_STATES[step]),
            col(Connection.due_at) <= now,
            or_(col(Connection.leased_until).is_(None), col(Connection.leased_until) <= now),
        )
        .with_for_update(skip_locked=True, of=Connection)
    ).all()
    return [
        _take(connection, tenant, step, now, lease, task_id)
        for connection, tenant in rows
        if connection.next_step is step and not _park_if_deadly(connection, now, policy)
    ]


def renew(database: Database, held: Mapping[UUID, int], *, until: datetime) -> None:
    """Hold on to these rows (id -> fence) for longer; rows taken over by others are left alone."""
    with database.write() as session:
        rows = session.exec(
            select(Connection).where(col(Connection.id).in_(held)).with_for_update(skip_locked=True)
        )
        for row in rows:
            if row.fence == held[row.id] and row.leased_until is not None:
                row.leased_until = until


def note_intent(database: Database, claim: Claim, at: datetime) -> None:
    """Commit that a create is about to be sent again; raise if the row is no longer ours."""
    with database.write() as session:
        row = session.get(Connection, claim.connection.id, with_for_update=True)
        if row is None or row.fence != claim.connection.fence or not row.is_leased(at):
            raise ClaimLostError("another worker holds this connection")
        row.create_sent_at = at


def _take(
    connection: Connection, tenant: Tenant, step: Step, now: datetime, lease: timedelta, task_id: str | None
) -> Claim:
    earlier_create_at = connection.create_sent_at
    connection.fence += 1
    connection.attempts += 1
    connection.leased_until = now + lease
    connection.hinted_until = None
    if step is Step.CREATE and earlier_create_at is None:
        connection.create_sent_at = now
    return Claim(connection, tenant, earlier_create_at=earlier_create_at, started_at=now, task_id=task_id)


def _park_if_deadly(connection: Connection, now: datetime, policy: RetryPolicy) -> bool:
    """A lease that ran out means its holder died; after too many of those, go slow."""
    if connection.leased_until is None or connection.attempts < policy.max_attempts:
        return False
    connection.due_at = now + policy.parked_pace
    connection.leased_until = connection.hinted_until = None
    connection.error_code = "worker_died"
    connection.error_message = f"{connection.attempts} attempts ended without an outcome: their workers died"
    connection.error_advice = "Look for crashes or kills in the workers' logs; it is tried again slowly."
    log.error("connection.parked", connection_id=str(connection.id), reason=connection.error_code)
    return True
