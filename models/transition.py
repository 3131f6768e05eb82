"""The history of a connection: one row for each move."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlmodel import Field

from foundation.database import new_id, utc_now
from models.base import Row
from models.columns import enum_column, now_field
from models.lifecycle import State


@dataclass(frozen=True, slots=True)
class Move:
    """A move that has just been made, to be written as a row of `transition` in the same transaction."""

    connection_id: UUID
    tenant_id: UUID
    from_state: State
    to_state: State
    why: str
    attempt: int = 0
    task_id: str | None = None
    at: datetime = field(default_factory=utc_now)
    id: UUID = field(default_factory=new_id)

    def values(self) -> dict[str, object]:
        """The columns of the row."""
        return {name: getattr(self, name) for name in self.__slots__}


class Transition(Row, table=True):
    """One move of one connection: when, from where, to where, and why."""

    __tablename__ = "transition"
    __table_args__ = (Index("ix_transition_tenant_at", "tenant_id", "at"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    connection_id: UUID = Field(foreign_key="connection.id")
    tenant_id: UUID = Field(foreign_key="tenant.id")
    at: datetime = now_field()
    from_state: State = Field(sa_type=enum_column(State))
    to_state: State = Field(sa_type=enum_column(State))
    why: str
    attempt: int
    task_id: str | None = Field(default=None, max_length=64)
