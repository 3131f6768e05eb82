"""`GET /v1/tenants`: where every customer stands, for the user's own app and for operators."""

import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, SecretStr
from sqlmodel import col, select

from foundation.database import Database
from models import Tenant, TenantState
from worker.settings import Settings
from worker.views import TenantView, views_of
from worker.web.answers import Refusal, RefusalBody
from worker.web.tenant_pages import Position, decoded, encoded, page_of_tenants


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
        """Tenants, oldest first; `next_cursor` leads to the next page.

        With `state`, a page may hold fewer than `limit`, even none, although `next_cursor` is not null:
        so far the search has gone.
        """
        with database.read() as session:
            page = page_of_tenants(session, state, limit, _position(cursor))
            views = views_of(session, page.tenants)
        return TenantPage(data=views, next_cursor=encoded(page.next) if page.next else None)

    @router.get("/{external_id:path}")
    def get_tenant(external_id: str) -> TenantView:
        """One tenant with its connections, at most 200 of them."""
        with database.read() as session:
            named = select(Tenant).where(col(Tenant.external_id) == external_id)
            tenant = None if "\x00" in external_id else session.exec(named).first()  # no database holds NUL
            if tenant is None:
                raise Refusal(HTTPStatus.NOT_FOUND, f"Not found: no tenant with external_id {external_id!r}")
            return views_of(session, [tenant])[0]

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


def _position(cursor: str | None) -> Position | None:
    try:
        return None if cursor is None else decoded(cursor)
    except ValueError as exc:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Validation failed", {"cursor": [str(exc)]}) from None
