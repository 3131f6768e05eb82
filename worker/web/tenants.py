"""`GET /v1/tenants`: where every customer stands, for the user's own app and for operators."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, SecretStr
from sqlalchemy import ColumnElement, and_, tuple_
from sqlmodel import Session, col, select

from foundation.database import Database
from models import Connection, Lane, Tenant, TenantState, Work
from models.columns import JsonObject
from worker.settings import Settings
from worker.tenants import state_of
from worker.web.answers import Refusal, RefusalBody
from worker.web.tenant_states import having_state

OF_THE_WORK = {"next_step", "due_at", "attempts"}


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
    state: str
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
    """One customer. `ready_at` is when the last of its connections became ready for the first time."""

    external_id: str
    id: UUID
    name: str | None
    plan: str
    state: str
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime
    ready_at: datetime | None
    connections: list[ConnectionView]

    @classmethod
    def of(cls, tenant: Tenant, connections: list[tuple[Connection, Work | None]]) -> Self:
        ready = [c.ready_at for c, _ in connections]
        return cls(
            **tenant.model_dump(include={"external_id", "id", "name", "plan", "created_at", "updated_at"}),
            metadata=tenant.metadata_,
            state=state_of(tenant, {c.state for c, _ in connections}),
            ready_at=max((at for at in ready if at is not None), default=None) if all(ready) else None,
            connections=[ConnectionView.of(c, work) for c, work in connections],
        )


class TenantPage(BaseModel):
    data: list[TenantView]
    next_cursor: str | None


def tenants(settings: Settings, database: Database) -> APIRouter:
    refusals: dict[int | str, dict[str, object]] = {code: {"model": RefusalBody} for code in (401, 404, 422)}
    router = APIRouter(
        prefix="/v1/tenants",
        tags=["tenants"],
        dependencies=[Depends(_operator_only(settings.operator_token))],
        responses=refusals,
    )

    @router.get("")
    def list_tenants(
        state: TenantState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(max_length=500)] = None,
    ) -> TenantPage:
        """Tenants, oldest first; `next_cursor` leads to the next page."""
        with database.read() as session:
            found = page_of_tenants(session, state, limit + 1, _decoded(cursor))
            views = _views(session, found[:limit])
        return TenantPage(data=views, next_cursor=_encoded(found[limit - 1]) if len(found) > limit else None)

    @router.get("/{external_id:path}")
    def get_tenant(external_id: str) -> TenantView:
        """One tenant with its connections."""
        with database.read() as session:
            named = select(Tenant).where(col(Tenant.external_id) == external_id)
            tenant = None if "\x00" in external_id else session.exec(named).first()  # no database holds NUL
            if tenant is None:
                raise Refusal(HTTPStatus.NOT_FOUND, f"Not found: no tenant with external_id {external_id!r}")
            return _views(session, [tenant])[0]

    return router


def _operator_only(token: SecretStr) -> Callable[[Request], None]:
    expected = f"Bearer {token.get_secret_value()}".encode()

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "Authorization: expected Bearer and the operator token (GANGWAY_OPERATOR_TOKEN)",
            )

    return check


def page_of_tenants(
    session: Session, state: TenantState | None, limit: int, after: tuple[datetime, UUID] | None
) -> list[Tenant]:
    position = tuple_(col(Tenant.created_at), col(Tenant.id))
    conditions: list[ColumnElement[bool]] = []
    if after is not None:
        conditions.append(position > after)
    if state is not None:
        conditions.append(having_state(state))
    order = (col(Tenant.created_at), col(Tenant.id))
    return list(session.exec(select(Tenant).where(*conditions).order_by(*order).limit(limit)))


def _views(session: Session, found: list[Tenant]) -> list[TenantView]:
    """Their connections are read together, not one tenant at a time."""
    ids = [tenant.id for tenant in found]
    by_tenant: dict[UUID, list[tuple[Connection, Work | None]]] = {tenant_id: [] for tenant_id in ids}
    mine = (
        select(Connection, Work)
        .join(
            Work,
            and_(col(Work.connection_id) == col(Connection.id), col(Work.lane) == Lane.LIFECYCLE),
            isouter=True,
        )
        .where(col(Connection.tenant_id).in_(ids))
        .order_by(col(Connection.created_at))
    )
    for connection, work in session.exec(mine):
        by_tenant[connection.tenant_id].append((connection, work))
    return [TenantView.of(tenant, by_tenant[tenant.id]) for tenant in found]


def _encoded(last: Tenant) -> str:
    return base64.urlsafe_b64encode(json.dumps([last.created_at.isoformat(), last.id.hex]).encode()).decode()


def _decoded(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    try:
        at, tenant_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return datetime.fromisoformat(at).astimezone(UTC), UUID(tenant_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Validation failed",
            {"cursor": ["expected the next_cursor of an earlier page"]},
        ) from None
