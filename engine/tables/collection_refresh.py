"""What is known of the collections behind a credential, and how the last look at them went (contract 8)."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Column
from sqlmodel import Field

from engine.tables.base import JsonObject, Row
from foundation.database import JsonColumn, UtcDateTime


class RefreshStatus(StrEnum):
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class CollectionRefresh(Row, table=True):
    """The refreshing of one credential's collections."""

    __tablename__ = "collection_refresh"

    credential_id: UUID = Field(foreign_key="credential.id", ondelete="CASCADE", primary_key=True)
    status: str = RefreshStatus.SUCCEEDED
    last_started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_succeeded_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    schemas: JsonObject = Field(default_factory=dict, sa_column=Column(JsonColumn, nullable=False))
    """Collection id to the JSON Schema learnt from its records."""
