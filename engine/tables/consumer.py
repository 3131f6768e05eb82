"""Who reads a stream, and what each reader has been handed but not acknowledged (contract 10)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field

from engine.tables.base import JsonObject, Resource, Row
from foundation.database import JsonColumn, UtcDateTime


class Consumer(Resource, table=True):
    """A place in a stream, shared by all who read through it."""

    __tablename__ = "consumer"

    stream_id: UUID = Field(foreign_key="stream.id", index=True)
    name: str | None = None
    deliver_policy: str
    ack_wait_ms: int
    max_deliver: int
    max_ack_pending: int
    meta: JsonObject = Field(default_factory=dict, sa_column=Column("metadata", JsonColumn, nullable=False))
    position: int = Field(default=0, sa_type=BigInteger)
    """Every version up to this `updated_idx` has been handed out at least once."""


class Delivery(Row, table=True):
    """One record handed out and not acknowledged; it is due again once `deadline` has passed."""

    __tablename__ = "delivery"
    __table_args__ = (Index("ix_delivery_due", "consumer_id", "deadline", "updated_idx"),)

    consumer_id: UUID = Field(foreign_key="consumer.id", ondelete="CASCADE", primary_key=True)
    record_id: UUID = Field(foreign_key="record.id", ondelete="CASCADE", primary_key=True, index=True)
    token: UUID = Field(unique=True)
    updated_idx: int = Field(sa_type=BigInteger)
    deadline: datetime = Field(sa_type=UtcDateTime)
    deliver_count: int = 1
