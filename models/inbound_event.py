"""The inbox: every accepted webhook message, once."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from foundation.database import UtcDateTime, new_id
from models.base import Row
from models.columns import JsonObject, json_field, now_field


class InboundEvent(Row, table=True):
    """A webhook message and the answer it got; the same message again gets the same answer.

    The body is not kept, since it carries credentials; its digest tells a repetition from a reuse of the id.
    """

    __tablename__ = "inbound_event"
    __table_args__ = (UniqueConstraint("source", "message_id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    source: str = Field(max_length=64)
    message_id: str = Field(max_length=255)
    body_digest: str = Field(max_length=64)
    type: str = Field(max_length=64)
    occurred_at: datetime = Field(sa_type=UtcDateTime)
    received_at: datetime = now_field()
    tenant_id: UUID = Field(foreign_key="tenant.id", index=True)
    answer: JsonObject = json_field()
