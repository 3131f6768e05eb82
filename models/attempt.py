"""One try of one step."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

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
    """A finished try. Uneventful polls leave none: there would be too many to be of use."""

    __tablename__ = "attempt"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    connection_id: UUID = Field(foreign_key="connection.id", index=True)
    tenant_id: UUID = Field(foreign_key="tenant.id", index=True)
    step: Step = Field(sa_type=enum_column(Step))
    number: int
    started_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime = now_field()
    outcome: AttemptOutcome = Field(sa_type=enum_column(AttemptOutcome))
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = None
    task_id: str | None = Field(default=None, max_length=64)
