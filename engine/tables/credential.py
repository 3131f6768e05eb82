"""A customer's access to one upstream account."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, UniqueConstraint
from sqlmodel import Field

from engine.tables.base import JsonObject, Resource
from foundation.database import JsonColumn, UtcDateTime


class Credential(Resource, table=True):
    """One per upstream account: importing it again refreshes it (contract 6.1)."""

    __tablename__ = "credential"
    __table_args__ = (
        UniqueConstraint("org_id", "provider", "account_key"),
        UniqueConstraint("org_id", "provider", "fingerprint"),
    )

    provider: str
    kind: str
    name: str | None = None
    oauth_app_id: UUID | None = None
    properties: JsonObject = Field(default_factory=dict, sa_column=Column(JsonColumn, nullable=False))
    """What is not secret, without `kind`."""
    sealed_secrets: str
    secret_names: list[str] = Field(default_factory=list, sa_column=Column(JsonColumn, nullable=False))
    account_key: str | None = None
    """The upstream account as the provider names it; empty while the provider has not told."""
    fingerprint: str
    sealed_tokens: str | None = None
    """What the provider has issued since: an access token, and the refresh token that replaced the last."""
    renewing_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """A worker is asking the provider for new tokens; until then the others wait."""
    meta: JsonObject = Field(default_factory=dict, sa_column=Column("metadata", JsonColumn, nullable=False))
    rejected_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Since when the provider refuses it."""
