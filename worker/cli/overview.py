"""How things stand, read straight from the database: what `gangway status` shows."""

from datetime import datetime
from typing import Final, Self
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import and_, func
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from models import Attempt, Connection, InboundEvent, Lane, State, Tenant, TenantState, Transition, Work
from worker.queue.incidents import incidents
from worker.tenants import state_of

WAITING: Final = (State.REQUESTED, State.CAPTURED, State.BACKFILLING)
LAST_ATTEMPTS: Final = 10
LAST_EVENTS: Final = 10
LAST_MOVES: Final = 100
CONNECTIONS_SHOWN: Final = 200
COUNTED_AT_MOST: Final = 10_000
URGENT: Final = (State.FAILED, State.DEGRADED, *WAITING, State.REMOVING)
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
    change_error: Problem | None
    """Why the last wanted change could not be made; the sync goes on without it."""
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


class Received(BaseModel):
    """One event about the tenant, and whether it changed anything."""

    received_at: datetime
    occurred_at: datetime
    source: str
    message_id: str
    type: str
    applied: bool
    reason: str | None

    @classmethod
    def of(cls, event: InboundEvent) -> Self:
        return cls(
            **event.model_dump(include={"received_at", "occurred_at", "source", "message_id", "type"}),
            applied=bool(event.answer.get("applied", True)),
            reason=str(event.answer["reason"]) if event.answer.get("reason") else None,
        )


class TenantDetail(TenantView):
    """One tenant with the newest part of what happened to it."""

    history: list[Move]
    last_attempts: list[Try]
    last_events: list[Received]


class Waiting(BaseModel):
    """Who has been waiting the longest, and since when."""

    external_id: str
    provider: str
    state: State
    since: datetime


class IncidentView(BaseModel):
    """One cause, many tenants: a provider that refuses them all."""

    provider: str
    code: str
    tenants: int
    since: datetime


class Overview(BaseModel):
    """All tenants in a few figures, and the most urgent of them by name."""

    tenants: int
    """Counted up to `COUNTED_AT_MOST`, as are the connections of each state."""
    connections_by_state: dict[State, int]
    oldest_waiting: Waiting | None
    incidents: list[IncidentView]
    data: list[TenantView]


def overview(session: Session, *, limit: int) -> Overview:
    """Reads a bounded number of rows by index, however many tenants there are."""
    by_state = {state: _bounded_count(session, _in_state(state)) for state in sorted(State)}
    everyone = select(Tenant.id).order_by(col(Tenant.created_at), col(Tenant.id))
    return Overview(
        tenants=_bounded_count(session, everyone),
        connections_by_state={state: count for state, count in by_state.items() if count},
        oldest_waiting=_oldest_waiting(session),
        incidents=[
            IncidentView(provider=i.provider, code=i.code, tenants=i.tenants, since=i.since)
            for i in incidents(session)
        ],
        data=_most_urgent(session, limit),
    )


def _in_state(state: State) -> SelectOfScalar[UUID]:
    return (
        select(Connection.id)
        .where(col(Connection.state) == state)
        .order_by(col(Connection.state), col(Connection.created_at))
    )


def _bounded_count(session: Session, ids: SelectOfScalar[UUID]) -> int:
    some = ids.limit(COUNTED_AT_MOST).subquery()
    return session.exec(select(func.count()).select_from(some)).one()


def tenant_detail(session: Session, external_id: str) -> TenantDetail | None:
    """One tenant with the newest part of its history."""
    tenant = session.exec(select(Tenant).where(Tenant.external_id == external_id)).one_or_none()
    if tenant is None:
        return None
    moves = select(Transition).where(Transition.tenant_id == tenant.id).order_by(col(Transition.at).desc())
    tries = select(Attempt).where(Attempt.tenant_id == tenant.id).order_by(col(Attempt.finished_at).desc())
    events = (
        select(InboundEvent)
        .where(InboundEvent.tenant_id == tenant.id)
        .order_by(col(InboundEvent.received_at).desc())
    )
    view = _view(tenant, _connections_of(session, [tenant.id]))
    return TenantDetail(
        **dict(view),
        history=[
            Move.model_validate(row, from_attributes=True)
            for row in reversed(session.exec(moves.limit(LAST_MOVES)).all())
        ],
        last_attempts=[
            Try.model_validate(row, from_attributes=True) for row in session.exec(tries.limit(LAST_ATTEMPTS))
        ],
        last_events=[Received.of(row) for row in session.exec(events.limit(LAST_EVENTS))],
    )


def _most_urgent(session: Session, limit: int) -> list[TenantView]:
    """Tenants with a connection in an urgent state first, the most urgent state first; then the oldest."""
    chosen: dict[UUID, None] = {}
    for state in URGENT:
        if len(chosen) >= limit:
            break
        mine = (
            select(Connection.tenant_id)
            .where(col(Connection.state) == state)
            .order_by(col(Connection.state), col(Connection.created_at))
        )
        chosen |= dict.fromkeys(session.exec(mine.limit(limit)))
    if len(chosen) < limit:
        oldest = select(Tenant.id).order_by(col(Tenant.created_at), col(Tenant.id)).limit(limit)
        chosen |= dict.fromkeys(session.exec(oldest))
    ids = list(chosen)[:limit]
    tenants = {t.id: t for t in session.exec(select(Tenant).where(col(Tenant.id).in_(ids)))}
    connections = _connections_of(session, ids)
    return [_view(tenants[tenant_id], connections) for tenant_id in ids]


def _connections_of(session: Session, tenant_ids: list[UUID]) -> list[tuple[Connection, Work | None]]:
    """Each connection with the work of its lifecycle; of one tenant at most `CONNECTIONS_SHOWN`."""
    statement = (
        select(Connection, Work)
        .join(
            Work,
            and_(col(Work.connection_id) == col(Connection.id), col(Work.lane) == Lane.LIFECYCLE),
            isouter=True,
        )
        .where(col(Connection.tenant_id).in_(tenant_ids))
        .order_by(col(Connection.provider), col(Connection.slot))
        .limit(CONNECTIONS_SHOWN * max(len(tenant_ids), 1))
    )
    return list(session.exec(statement))


def _view(tenant: Tenant, connections: list[tuple[Connection, Work | None]]) -> TenantView:
    own = [(connection, work) for connection, work in connections if connection.tenant_id == tenant.id]
    return TenantView(
        external_id=tenant.external_id,
        id=tenant.id,
        name=tenant.name,
        plan=tenant.plan,
        state=TenantState(state_of(tenant, {connection.state for connection, _ in own})),
        created_at=tenant.created_at,
        connections=[_connection_view(connection, work) for connection, work in own],
    )


def _connection_view(connection: Connection, work: Work | None) -> ConnectionView:
    error = None
    if connection.error_code is not None:
        error = Problem(
            code=connection.error_code, message=connection.error_message, advice=connection.error_advice
        )
    change = connection.change_problem
    return ConnectionView(
        id=connection.id,
        provider=connection.provider,
        slot=connection.slot,
        state=connection.state,
        health=connection.health,
        sync_id=connection.remote_sync_id,
        error=error,
        change_error=Problem.model_validate(change) if change else None,
        next_step=work.step if work and work.due_at else None,
        due_at=work.due_at if work else None,
        attempts=work.attempts if work else 0,
        ready_at=connection.ready_at,
    )


def _oldest_waiting(session: Session) -> Waiting | None:
    oldest = [
        session.exec(
            select(Tenant.external_id, Connection)
            .join(Tenant, col(Tenant.id) == Connection.tenant_id)
            .where(col(Connection.state) == state)
            .order_by(col(Connection.state), col(Connection.created_at))
            .limit(1)
        ).first()
        for state in WAITING
    ]
    waiting = [found for found in oldest if found is not None]
    if not waiting:
        return None
    external_id, connection = min(waiting, key=lambda found: found[1].created_at)
    return Waiting(
        external_id=external_id,
        provider=connection.provider,
        state=connection.state,
        since=connection.created_at,
    )
