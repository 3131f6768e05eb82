"""A tenant as others see it: what the API answers and what `gangway status` shows are the same."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Select, and_, func
from sqlalchemy import select as sa_select
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from models import Connection, Lane, State, Tenant, TenantState, Work
from models.columns import JsonObject
from worker.tenants import state_of, states_of, with_more_connections_than

CONNECTIONS_SHOWN: Final = 200
COUNTED_AT_MOST: Final = 10_000
OF_THE_WORK: Final = {"next_step", "due_at", "attempts"}


class ErrorView(BaseModel):
    """What went wrong and what to do about it."""

    code: str
    message: str | None
    advice: str | None


class ConnectionView(BaseModel):
    """One connection; `next_step` is due at `due_at`, if anything is."""

    id: UUID
    provider: str
    slot: str
    state: State
    health: str | None
    sync_id: str | None
    stream_id: str | None
    credential_id: str | None
    initial_backfill_completed_at: datetime | None
    ready_at: datetime | None
    attempts: int
    next_step: str | None
    due_at: datetime | None
    error: ErrorView | None
    change_error: ErrorView | None
    """Why the last wanted change could not be made; the sync goes on without it."""

    @classmethod
    def of(cls, c: Connection, work: Work | None) -> Self:
        error = c.error_code and ErrorView(code=c.error_code, message=c.error_message, advice=c.error_advice)
        return cls(
            **c.model_dump(include=cls.model_fields.keys() - OF_THE_WORK - {"error", "change_error"}),
            sync_id=c.remote_sync_id,
            stream_id=c.remote_stream_id,
            credential_id=c.remote_credential_id,
            next_step=work.step if work and work.due_at else None,
            due_at=work.due_at if work else None,
            attempts=work.attempts if work else 0,
            error=error or None,
            change_error=ErrorView.model_validate(c.change_problem) if c.change_problem else None,
        )


class TenantView(BaseModel):
    """One customer, with at most 200 of its connections."""

    external_id: str
    id: UUID
    name: str | None
    plan: str
    state: TenantState
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime
    ready_at: datetime | None
    """When the last of its connections became ready for the first time; null if not all are shown."""
    connections: list[ConnectionView]
    """In the order of provider and slot."""
    connection_count: int
    """How many there are, counted up to 10,000; more than the list has if not all are shown."""

    @classmethod
    def of(cls, tenant: Tenant, shown: "Shown") -> Self:
        ready = [None] if shown.is_cut else [c.ready_at for c, _ in shown.rows]
        return cls(
            **tenant.model_dump(include={"external_id", "id", "name", "plan", "created_at", "updated_at"}),
            metadata=tenant.metadata_,
            state=state_of(tenant, shown.states),
            ready_at=max((at for at in ready if at is not None), default=None) if all(ready) else None,
            connections=[ConnectionView.of(c, work) for c, work in shown.rows],
            connection_count=shown.count,
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """The connections of one tenant that a view shows, and what is true of all of them."""

    rows: Sequence[tuple[Connection, Work | None]]
    states: Collection[State]
    count: int

    @property
    def is_cut(self) -> bool:
        return self.count > len(self.rows)


def views_of(session: Session, tenants: Sequence[Tenant]) -> list[TenantView]:
    """The tenants as others see them. Small tenants are read together, large ones up to a limit each."""
    ids = [tenant.id for tenant in tenants]
    large = with_more_connections_than(session, CONNECTIONS_SHOWN, ids)
    shown = {tenant_id: _part_of(session, tenant_id) for tenant_id in large}
    shown |= _whole(session, [tenant_id for tenant_id in ids if tenant_id not in large])
    return [TenantView.of(tenant, shown[tenant.id]) for tenant in tenants]


def bounded_count(session: Session, ids: SelectOfScalar[UUID]) -> int:
    """How many there are, counted up to `COUNTED_AT_MOST`."""
    some = ids.limit(COUNTED_AT_MOST).subquery()
    return session.exec(select(func.count()).select_from(some)).one()


def _whole(session: Session, tenant_ids: Sequence[UUID]) -> Mapping[UUID, Shown]:
    rows: dict[UUID, list[tuple[Connection, Work | None]]] = {tenant_id: [] for tenant_id in tenant_ids}
    if tenant_ids:
        for connection, work in session.execute(_rows_of(tenant_ids)):
            rows[connection.tenant_id].append((connection, work))
    return {
        tenant_id: Shown(mine, {connection.state for connection, _ in mine}, len(mine))
        for tenant_id, mine in rows.items()
    }


def _part_of(session: Session, tenant_id: UUID) -> Shown:
    rows = session.execute(_rows_of([tenant_id]).limit(CONNECTIONS_SHOWN)).all()
    count = bounded_count(session, select(Connection.id).where(col(Connection.tenant_id) == tenant_id))
    return Shown(rows, states_of(session, [tenant_id])[tenant_id], count)


def _rows_of(tenant_ids: Sequence[UUID]) -> Select[Connection, Work]:
    """Connections with the work of their lifecycle, in the order of an index."""
    mine = and_(col(Work.connection_id) == col(Connection.id), col(Work.lane) == Lane.LIFECYCLE)
    return (
        sa_select(Connection, Work)
        .join(Work, mine, isouter=True)
        .where(col(Connection.tenant_id).in_(tenant_ids))
        .order_by(col(Connection.tenant_id), col(Connection.provider), col(Connection.slot))
    )
