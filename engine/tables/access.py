"""Who may call: organisations, their tokens, and the keys that make a repeated POST harmless."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, UniqueConstraint, false
from sqlmodel import Field

from engine.tables.base import Identified, Owned
from foundation.database import JsonColumn, UtcDateTime

KEPT_FOR: Final = timedelta(days=1)


class Organization(Identified, table=True):
    """Owner of everything else."""

    __tablename__ = "organization"

    name: str = Field(unique=True)
    sealed_fingerprint_key: str
    """Keys the fingerprints of secrets, so that equal secrets of two organisations look unrelated."""
    sync_changes_forgotten: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )
    """Deletions up to this number (`SyncChange.change`) are no longer kept."""


class Scope(StrEnum):
    """What a token may do; none includes another."""

    READ = "read"
    WRITE = "write"
    READ_SECRETS = "read-secrets"


class ApiToken(Owned, table=True):
    """A bearer token, known only by its SHA-256."""

    __tablename__ = "api_token"

    name: str
    token_hash: str = Field(unique=True)
    scopes: list[str] = Field(sa_column=Column(JsonColumn, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    from_settings: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Valid only in a process whose settings name it."""


class IdempotencyKey(Owned, table=True):
    """A key a client gave to a POST, and the object that POST created; forgotten after `KEPT_FOR`."""

    __tablename__ = "idempotency_key"
    __table_args__ = (UniqueConstraint("org_id", "route", "key"),)

    route: str
    key: str
    body_digest: str
    object_id: UUID
