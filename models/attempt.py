"""One try of one step."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index
from sqlmodel import Field

from foundation.database import UtcDateTime, new_id
from models.base import Row
from models.columns import enum_column, now_field
from models.lifecycle import Step


class AttemptOutcome(StrEnum):
    """How a try ended."""

    SUCCEEDED = "succeeded"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


class Attempt(Row, table=True):
    """A try that failed, or changed something without moving the connection; moves are in `transition`."""

    __tablename__ = "attempt"
    __table_args__ = (Index("ix_attempt_tenant_finished_at", "tenant_id", "finished_at"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    connection_id: UUID = Field(foreign_key="connection.id")
    tenant_id: UUID = Field(foreign_key="tenant.id")
    step: Step = Field(sa_type=enum_column(Step))
    number: int
    started_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime = now_field()
    outcome: AttemptOutcome = Field(sa_type=enum_column(AttemptOutcome))
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = None
    task_id: str | None = Field(default=None, max_length=64)
