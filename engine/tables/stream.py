"""Where records land, compacted: one entry per record, ordered by `updated_idx` (contract 9)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint
from sqlmodel import Field

from engine.tables.base import Identified, JsonObject, Resource
from foundation.database import UtcDateTime, utc_now


class Stream(Resource, table=True):
    """A named sequence of records that several syncs write and several consumers read."""

    __tablename__ = "stream"
    __table_args__ = (UniqueConstraint("org_id", "slug"),)

    slug: str
    last_idx: int = Field(default=0, sa_type=BigInteger)
    """The newest index given out. Its row lock makes the order of indices the order of commits."""


class Record(Identified, table=True):
    """The current version of one upstream object."""

    __tablename__ = "record"
    __table_args__ = (
        UniqueConstraint("sync_id", "collection_id", "upstream_id"),
        Index("ix_record_order", "stream_id", "updated_idx"),
    )
    # The order is not declared unique, though the stream's row lock makes it so: PostgreSQL takes a unique
    # index for a key, and who moves a record would wait for, and deadlock with, who is handing it out.

    stream_id: UUID = Field(foreign_key="stream.id", ondelete="CASCADE")
    sync_id: UUID = Field(foreign_key="sync.id", ondelete="CASCADE")
    collection_id: str
    upstream_id: str
    updated_idx: int = Field(sa_type=BigInteger)
    data: JsonObject = Field(sa_column=Column(JSON, nullable=False))  # not JSONB: kept as upstream sent it
    digest: str
    """Of `data`: an unchanged object is not appended again."""
    pass_id: UUID
    """The reading of the collection that last met it."""
    deleted: bool = False
    as_of: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    """When upstream is known to have looked like this; an older word about the object is not believed."""
    upstream_created_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    upstream_updated_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    appended_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
