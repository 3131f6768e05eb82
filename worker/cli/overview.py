"""How things stand, read straight from the database: what `gangway status` shows."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import case, func
from sqlmodel import Session, col, select

from models import Attempt, Connection, State, Tenant, TenantState, Transition, tenant_state

WAITING: Final = (State.REQUESTED, State.CAPTURED, State.BACKFILLING)
LAST_ATTEMPTS: Final = 10
_URGENCY: Final = {State.FAILED: 0, State.DEGRADED: 1, **dict.fromkeys(WAITING, 2), State.REMOVING: 3}
"""Who needs a person comes first, then who waits."""


class Problem(BaseModel):
    """What went wrong and what to do about it."""

    code: str
    message: str | None
    advice: str | None


class ConnectionView(BaseModel):
    """One connection as an operator sees it."""

    id: UUID
    provider: str
    slot: str
    state: State
    health: str | None
    sync_id: str | None
    error: Problem | None
    next_step: str | None
    due_at: datetime | None
    attempts: int
    ready_at: datetime | None


class TenantView(BaseModel):
    """One tenant as an operator sees it."""

    external_id: str
    id: UUID
    name: str | None
    plan: str
    state: TenantState
    created_at: datetime
    connections: list[ConnectionView]


class Move(BaseModel):
    """One entry of a connection's history."""

    at: datetime
    connection_id: UUID
    from_state: State
    to_state: State
    why: str


class Try(BaseModel):
    """One finished attempt."""

    started_at: datetime
    finished_at: datetime
    connection_id: UUID
    step: str
    number: int
    outcome: str
    error_code: str | None
    error_message: str | None


class TenantDetail(TenantView):
    """One tenant with what happened to it."""

    history: list[Move]
    last_attempts: list[Try]


class Waiting(BaseModel):
    """Who has been waiting the longest, and since when."""

    external_id: str
    provider: str
    state: State
    since: datetime


class Overview(BaseModel):
    """All tenants in a few figures, and the most urgent of them by name."""

    tenants: int
    connections_by_state: dict[State, int]
    oldest_waiting: Waiting | None
    data: list[TenantView]


def overview(session: Session, *, limit: int) -> Overview:
    by_state = session.exec(select(Connection.state, func.count()).group_by(col(Connection.state))).all()
    return Overview(
        tenants=session.exec(select(func.count()).select_from(Tenant)).one(),
        connections_by_state=dict(sorted(by_state)),
        oldest_waiting=_oldest_waiting(session),
        data=_most_urgent(session, limit),
    )


def tenant_detail(session: Session, external_id: str) -> TenantDetail | None:
    tenant = session.exec(select(Tenant).where(Tenant.external_id == external_id)).one_or_none()
    if tenant is None:
        return None
    moves = select(Transition).where(Transition.tenant_id == tenant.id).order_by(col(Transition.at))
    tries = select(Attempt).where(Attempt.tenant_id == tenant.id).order_by(col(Attempt.finished_at).desc())
    view = _view(tenant, _connections_of(session, [tenant.id]))
    return TenantDetail(
        **dict(view),
        history=[Move.model_validate(row, from_attributes=True) for row in session.exec(moves)],
        last_attempts=[
            Try.model_validate(row, from_attributes=True) for row in session.exec(tries.limit(LAST_ATTEMPTS))
        ],
    )


def _most_urgent(session: Session, limit: int) -> list[TenantView]:
    urgency: Any = func.min(case(_URGENCY, value=col(Connection.state), else_=9))
    statement = (
        select(Tenant)
        .join(Connection, col(Connection.tenant_id) == Tenant.id, isouter=True)
        .group_by(col(Tenant.id))
        .order_by(urgency, col(Tenant.created_at), col(Tenant.id))
        .limit(limit)
    )
    tenants = session.exec(statement).all()
    connections = _connections_of(session, [tenant.id for tenant in tenants])
    return [_view(tenant, connections) for tenant in tenants]


def _connections_of(session: Session, tenant_ids: list[UUID]) -> list[Connection]:
    statement = select(Connection).where(col(Connection.tenant_id).in_(tenant_ids))
    return list(session.exec(statement.order_by(col(Connection.provider), col(Connection.slot))))


def _view(tenant: Tenant, connections: list[Connection]) -> TenantView:
    own = [connection for connection in connections if connection.tenant_id == tenant.id]
    return TenantView(
        external_id=tenant.external_id,
        id=tenant.id,
        name=tenant.name,
        plan=tenant.plan,
        state=tenant_state(connection.state for connection in own),
        created_at=tenant.created_at,
        connections=[_connection_view(connection) for connection in own],
    )


def _connection_view(connection: Connection) -> ConnectionView:
    error = None
    if connection.error_code is not None:
        error = Problem(
            code=connection.error_code, message=connection.error_message, advice=connection.error_advice
        )
    return ConnectionView(
        id=connection.id,
        provider=connection.provider,
        slot=connection.slot,
        state=connection.state,
        health=connection.health,
        sync_id=connection.remote_sync_id,
        error=error,
        next_step=connection.next_step,
        due_at=connection.due_at,
        attempts=connection.attempts,
        ready_at=connection.ready_at,
    )


def _oldest_waiting(session: Session) -> Waiting | None:
    statement = (
        select(Tenant.external_id, Connection)
        .join(Tenant, col(Tenant.id) == Connection.tenant_id)
        .where(col(Connection.state).in_(WAITING))
        .order_by(col(Connection.created_at))
        .limit(1)
    )
    found = session.exec(statement).first()
    if found is None:
        return None
    external_id, connection = found
    return Waiting(
        external_id=external_id,
        provider=connection.provider,
        state=connection.state,
        since=connection.created_at,
    )
