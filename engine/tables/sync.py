"""A sync, and how far the reading of each of its collections has come."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint
from sqlmodel import Field

from engine.tables.base import Identified, JsonObject, Resource
from foundation.database import JsonColumn, UtcDateTime, new_id


class SyncStatus(StrEnum):
    """What the customer wants (contract 2.1); trouble is told by the health instead."""

    ACTIVE = "active"
    DISABLED = "disabled"


class ReadingKind(StrEnum):
    """What a reading reads."""

    PASS = "pass"  # noqa: S105  # not a password: once over all of a collection
    SINCE = "since"
    EVENTS = "events"


class SyncFrequency(StrEnum):
    CONTINUOUS = "continuous"
    EVERY_4H = "4h"


INITIALIZING: Final = "initializing"
ALL_COLLECTIONS: Final = "*"
"""Stands in the reading of an event feed, which serves them all."""


class Sync(Resource, table=True):
    """A connection to one upstream account that fills a stream."""

    __tablename__ = "sync"
    __table_args__ = (Index("ix_sync_listed", "org_id", "created_at", "id"),)

    stream_id: UUID = Field(foreign_key="stream.id", ondelete="CASCADE", index=True)
    credential_id: UUID | None = Field(foreign_key="credential.id", ondelete="SET NULL", index=True)
    """Empty only once the sync is removed."""
    provider: str
    name: str
    status: str = SyncStatus.ACTIVE
    collection_ids: list[str] = Field(sa_column=Column(JsonColumn, nullable=False))
    rate_limit: JsonObject = Field(sa_column=Column(JsonColumn, nullable=False))
    max_age_days: int | None = None
    sync_frequency: str = SyncFrequency.CONTINUOUS
    meta: JsonObject = Field(default_factory=dict, sa_column=Column("metadata", JsonColumn, nullable=False))
    external_id: str | None = Field(default=None, index=True)
    health_status: str = INITIALIZING
    health_reason: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    initial_backfill_completed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    removed_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    """Deleted for the API; its records are being erased in the background, unless they are kept."""
    keeps_records: bool = False
    """What it brought stays in the stream after it is removed."""
    trimmed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When records beyond `max_age_days` were last taken out of the stream."""


class Progress(Identified, table=True):
    """A reading of a collection, or of an event feed: what comes next, when, and who is at it.

    A row is due when `due_at` has passed and no lease holds it. Each claim raises `fence`; a write whose
    fence is no longer the row's own changes nothing.
    """

    __tablename__ = "progress"
    __table_args__ = (UniqueConstraint("sync_id", "kind", "collection_id"),)

    sync_id: UUID = Field(foreign_key="sync.id", ondelete="CASCADE")
    kind: str = ReadingKind.PASS
    collection_id: str
    due_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    hinted_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """A message is under way; the sweep need not send another before this time."""
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    fence: int = Field(default=0, sa_type=BigInteger)
    cursor: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    pass_id: UUID = Field(default_factory=new_id)
    refused: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    """A cursor that was refused, so that the pass went back to the first page."""
    skipped: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    """The trouble with the list of a parent that the pass had to do without."""
    retiring_after: str | None = None
    """Set once all pages are read: up to this upstream id, what the pass did not meet has been retired."""
    position: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    """Up to when changes have been seen; only a reading of changes has one."""
    pages_read: int = 0
    stale_pages: int = 0
    """Pages in a row that brought nothing this pass had not met before."""
    records_read: int = Field(default=0, sa_type=BigInteger)
    failures: int = 0
    """In a row, since the last page."""
    deaths: int = 0
    """How often in a row, since the last answer, a lease ran out because its worker had died."""
    trouble: JsonObject | None = Field(default=None, sa_column=Column(JsonColumn, nullable=True))
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    done_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the last whole pass ended; a pass is under way while it began after that."""
    checked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When changes were last looked for to the end."""
    changed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When that last brought any."""
