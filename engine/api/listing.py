"""Lists: filters that resources share, a stable order, and optional pages (a superset of the contract)."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, SQLColumnExpression, and_, or_, true
from sqlmodel import col

from engine.api.body import parse
from engine.api.caller import Services
from engine.containment import contains, size_of
from engine.errors import BadRequestError
from engine.tables import JsonObject
from engine.tables.base import Resource

MAX_LIMIT: Final = 1_000
MAX_FILTER_LENGTH: Final = 4_000
MAX_FILTER_DEPTH: Final = 8
MAX_FILTER_VALUES: Final = 50
"""On SQLite each value is a subquery."""
JSON_OBJECT: Final[JsonObject] = {
    "contentMediaType": "application/json",
    "contentSchema": {"type": "object"},
}

Item = TypeVar("Item")
Row = TypeVar("Row")
Statement = TypeVar("Statement", bound="Select[*tuple[Any, ...]]")


class Listed(BaseModel, Generic[Item]):
    """All matches, or one page of them when a limit is given."""

    data: list[Item]
    next_cursor: str | None = Field(default=None, exclude_if=lambda value: value is None)


@dataclass(frozen=True, slots=True)
class Contained:
    """The metadata filter of one request."""

    wanted: JsonObject | None
    on_sqlite: bool

    def within(self, column: SQLColumnExpression[JsonObject]) -> ColumnElement[bool]:
        """A condition: the column contains what is asked for, if anything is."""
        if self.wanted is None:
            return true()
        return contains(column, self.wanted, on_sqlite=self.on_sqlite)


def equal(table: type[Resource], **wanted: object) -> Iterator[ColumnElement[bool]]:
    """Conditions: columns have the values asked for; None asks for nothing."""
    return (getattr(table, name) == value for name, value in wanted.items() if value is not None)


def _metadata_filter(
    request: Request,
    metadata: Annotated[
        Annotated[str, Field(json_schema_extra=JSON_OBJECT)] | None,
        Query(
            description="URL-encoded JSON that the metadata contains, nested to "
            f"{MAX_FILTER_DEPTH} levels, at most {MAX_FILTER_VALUES} values",
            examples=['{"plan": "gold"}'],
            max_length=MAX_FILTER_LENGTH,
        ),
    ] = None,
) -> Contained:
    services: Services = request.app.state.services
    return Contained(None if metadata is None else _object(metadata), services.database.is_sqlite)


def _object(metadata: str) -> JsonObject:
    value = parse(metadata)
    if value == []:
        return {}
    if not isinstance(value, dict):
        raise BadRequestError("Invalid query parameter metadata: expected a JSON object")
    size = size_of(value)
    if size.depth > MAX_FILTER_DEPTH:
        raise BadRequestError(f"Invalid query parameter metadata: more than {MAX_FILTER_DEPTH} levels")
    if size.values > MAX_FILTER_VALUES:
        raise BadRequestError(f"Invalid query parameter metadata: more than {MAX_FILTER_VALUES} values")
    return value


@dataclass(frozen=True, slots=True)
class PageOf:
    """Which part of a list is asked for; all of it unless a limit is given."""

    limit: int | None
    after: tuple[datetime, UUID] | None

    def select(self, statement: Statement, table: type[Resource]) -> Statement:
        """Oldest first, from where the page before ended."""
        statement = statement.order_by(col(table.created_at), col(table.id))
        if self.after is not None:
            statement = statement.where(_is_after(table, *self.after))
        return statement if self.limit is None else statement.limit(self.limit + 1)

    def cut(
        self, rows: Sequence[Row], resource: Callable[[Row], Resource]
    ) -> tuple[Sequence[Row], str | None]:
        """The page's rows, and the cursor of the next page if there is one."""
        if self.limit is None or len(rows) <= self.limit:
            return rows, None
        page = rows[: self.limit]
        return page, _encode(resource(page[-1]))


def _page(
    limit: Annotated[int | None, Query(ge=1, le=MAX_LIMIT)] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
) -> PageOf:
    return PageOf(limit, None if cursor is None else _decode(cursor))


def _is_after(table: type[Resource], created_at: datetime, row_id: UUID) -> ColumnElement[bool]:
    same_moment = and_(col(table.created_at) == created_at, col(table.id) > row_id)
    return or_(col(table.created_at) > created_at, same_moment)


def _encode(resource: Resource) -> str:
    return base64.urlsafe_b64encode(f"{resource.created_at.isoformat()} {resource.id}".encode()).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        return datetime.fromisoformat(created_at).astimezone(UTC), UUID(row_id)
    except (ValueError, OverflowError):  # a year before the first or after the last, once it is in UTC
        raise BadRequestError("Invalid query parameter cursor") from None


MetadataFilter = Annotated[Contained, Depends(_metadata_filter)]
Page = Annotated[PageOf, Depends(_page)]
HealthFilter = Annotated[str | None, Query(alias="health.status", examples=["error"])]
