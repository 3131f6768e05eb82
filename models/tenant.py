"""One customer of the SaaS company."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Index
from sqlmodel import Field

from foundation.database import JsonColumn, new_id
from models.base import Row
from models.columns import Clock, JsonObject, clock_field, now_field, partial_index


class Tenant(Row, table=True):
    """A customer, known by the `external_id` that it has in the user's own system."""

    __tablename__ = "tenant"
    __table_args__ = (
        Index("ix_tenant_created_at_id", "created_at", "id"),
        partial_index("ix_tenant_unannounced", "updated_at", where="NOT is_announced"),
        partial_index("ix_tenant_spreading", "id", where="spread_after IS NOT NULL"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    external_id: str = Field(max_length=255, unique=True)
    name: str | None = Field(default=None, max_length=255)
    plan: str = Field(max_length=64)
    metadata_: JsonObject = Field(
        default_factory=dict, sa_column=Column("metadata", JsonColumn, nullable=False)
    )
    is_announced: bool = False
    """Whether `tenant.created` has arrived; events that overtook it wait for it."""
    is_removed: bool = False
    clock: Clock = clock_field()
    spread_after: UUID | None = None
    """A change of this tenant is being applied to its many connections: done up to this connection's id."""
    created_at: datetime = now_field()
    updated_at: datetime = now_field()
