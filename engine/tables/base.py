"""The engine's own registry, so that its tables never meet those of another service in one process."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from foundation.database import UtcDateTime, new_id, utc_now

JsonObject: TypeAlias = dict[str, JsonValue]
JsonMapping: TypeAlias = Mapping[str, JsonValue]

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMES))):
    """Base of every table of the engine."""


class Identified(Row):
    """A row with an id of its own and the time it came to be."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class Owned(Identified):
    """A row of one organisation; nobody else may see it."""

    org_id: UUID = Field(foreign_key="organization.id", index=True)


class Resource(Owned):
    """What the API shows and changes."""

    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
