"""Column kinds that several tables share."""

from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from pydantic import JsonValue
from sqlalchemy import JSON, Enum, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from foundation.database import JsonColumn, UtcDateTime, utc_now

JsonObject = dict[str, JsonValue]
Clock = dict[str, str]
"""For each field, the instant (ISO 8601) of the event that last set it: the newest wins, field by field."""

E = TypeVar("E", bound=StrEnum)


def enum_column(kind: type[E]) -> Enum:
    """Stores the values, not the member names, and lets a later release add one without a migration."""
    return Enum(kind, values_callable=lambda k: [m.value for m in k], native_enum=False, length=32)


NullableJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON column whose None is the database's NULL."""


def partial_index(name: str, *columns: str, where: str) -> Index:
    """An index of the rows for which the condition holds, on both databases."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def json_field() -> JsonObject:
    return Field(default_factory=dict, sa_type=JsonColumn)  # type: ignore[no-any-return]


def clock_field() -> Clock:
    return Field(default_factory=dict, sa_type=JsonColumn)  # type: ignore[no-any-return]


def instant(*, index: bool = False) -> datetime | None:
    """An optional instant, UTC."""
    return Field(default=None, sa_type=UtcDateTime, index=index)  # type: ignore[no-any-return]


def now_field() -> datetime:
    """When the row was made, UTC."""
    return Field(default_factory=utc_now, sa_type=UtcDateTime)  # type: ignore[no-any-return]
