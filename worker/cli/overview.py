"""How things stand, read straight from the database: what `gangway status` shows."""

from datetime import datetime
from typing import Final, Self
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from models import Attempt, Connection, InboundEvent, State, Tenant, Transition
from worker.cli.limits import LimitsView
from worker.queue.incidents import incidents
from worker.views import COUNTED_AT_MOST, TenantView, bounded_count, views_of

WAITING: Final = (State.REQUESTED, State.CAPTURED, State.BACKFILLING)
LAST_ATTEMPTS: Final = 10
LAST_EVENTS: Final = 10
LAST_MOVES: Final = 100
URGENT: Final = (State.FAILED, State.DEGRADED, *WAITING, State.REMOVING)
"""Who needs a person comes first, then who waits."""


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

    tenant_count: int
    """Counted up to 10,000, as are the connections of each state."""
    connections_by_state: dict[State, int]
    oldest_waiting: Waiting | None
    incidents: list[IncidentView]
    limits: LimitsView = LimitsView(unknown_because="not asked")
    """What holds back calls of the Management API, from Redis; all else is from the database."""
    tenants: list[TenantView]


def overview(session: Session, *, limit: int) -> Overview:
    """Reads a bounded number of rows by index, however many tenants there are."""
    by_state = {state: bounded_count(session, _in_state(state)) for state in sorted(State)}
    everyone = select(Tenant.id).order_by(col(Tenant.created_at), col(Tenant.id))
    return Overview(
        tenant_count=bounded_count(session, everyone),
        connections_by_state={state: count for state, count in by_state.items() if count},
        oldest_waiting=_oldest_waiting(session),
        incidents=[
            IncidentView(provider=i.provider, code=i.code, tenants=i.tenants, since=i.since)
            for i in incidents(session)
        ],
        tenants=_most_urgent(session, limit),
    )


def _in_state(state: State) -> SelectOfScalar[UUID]:
    return (
        select(Connection.id)
        .where(col(Connection.state) == state)
        .order_by(col(Connection.state), col(Connection.created_at))
    )


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
    (view,) = views_of(session, [tenant])
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
        chosen |= dict.fromkeys(session.exec(_longest_in(state).limit(limit)))
    if len(chosen) < limit:
        oldest = select(Tenant.id).order_by(col(Tenant.created_at), col(Tenant.id)).limit(limit)
        chosen |= dict.fromkeys(session.exec(oldest))
    ids = list(chosen)[:limit]
    tenants = {t.id: t for t in session.exec(select(Tenant).where(col(Tenant.id).in_(ids)))}
    return views_of(session, [tenants[tenant_id] for tenant_id in ids])


def _longest_in(state: State) -> SelectOfScalar[UUID]:
    """The tenants with a connection in this state, the oldest such connection first.

    So many connections are looked at that one tenant's do not hide the other tenants.
    """
    some = (
        select(col(Connection.tenant_id), col(Connection.created_at))
        .where(col(Connection.state) == state)
        .order_by(col(Connection.state), col(Connection.created_at))
        .limit(COUNTED_AT_MOST)
        .subquery()
    )
    return select(some.c.tenant_id).group_by(some.c.tenant_id).order_by(func.min(some.c.created_at))


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
