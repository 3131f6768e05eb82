"""What the connect flow has captured and nobody has fetched yet."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field

from engine.tables.base import Owned
from foundation.database import UtcDateTime


class ConnectCode(Owned, table=True):
    """A one-time code, known only by its SHA-256, and the sealed credential it stands for."""

    __tablename__ = "connect_code"

    oauth_app_id: UUID = Field(foreign_key="oauth_app.id", ondelete="CASCADE", index=True)
    code_hash: str = Field(unique=True)
    sealed_grant: str
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
