"""The changes of syncs in the order in which they became visible, kept by triggers on the table `sync`."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, text
from sqlmodel import Field

from engine.tables.base import JsonObject, Row
from foundation.database import JsonColumn, UtcDateTime

THE_FEED: Final = 1
"""The id of the only row of `sync_feed`."""


class SyncChange(Row, table=True):
    """The latest change of one sync. A deleted sync stays here for a while after its own row is gone."""

    __tablename__ = "sync_change"
    __table_args__ = (
        Index("ix_sync_change_order", "org_id", "change", "sync_id", unique=True),
        Index(
            "ix_sync_change_deleted_at",
            "deleted_at",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
    )

    sync_id: UUID = Field(primary_key=True)
    org_id: UUID = Field(foreign_key="organization.id")
    change: int = Field(sa_type=BigInteger)
    """PostgreSQL: the id of the transaction that changed the sync. SQLite: `sync_feed.last_change` then."""
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    provider: str | None = None
    """This and what follows is filled in when the sync is deleted."""
    stream_id: UUID | None = None
    external_id: str | None = None
    meta: JsonObject | None = Field(default=None, sa_column=Column("metadata", JsonColumn, nullable=True))


class SyncFeed(Row, table=True):
    """What holds for all changes; one row."""

    __tablename__ = "sync_feed"

    id: int = Field(default=THE_FEED, primary_key=True)
    epoch: str
    """Part of every cursor. A new epoch makes all followers start again."""
    home: str | None = None
    """The PostgreSQL server and database whose transaction ids the changes are."""
    last_change: int = Field(default=0, sa_type=BigInteger)
    """SQLite only."""
