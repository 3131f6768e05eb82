"""A customer's own OAuth app at a provider (contract 7)."""

from datetime import datetime

from sqlalchemy import Column
from sqlmodel import Field

from engine.tables.base import JsonObject, Resource
from foundation.database import JsonColumn, UtcDateTime


class OAuthApp(Resource, table=True):
    """What the provider calls the app, and where its users may be sent back to."""

    __tablename__ = "oauth_app"

    provider: str
    name: str
    client_id: str
    sealed_client_secret: str
    redirect_uris: list[str] = Field(default_factory=list, sa_column=Column(JsonColumn, nullable=False))
    meta: JsonObject = Field(default_factory=dict, sa_column=Column("metadata", JsonColumn, nullable=False))
    rejected_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Since when the provider refuses its client id and secret."""
