"""What a tenant has with one provider: one credential, one sync; the unit of work, of state and of retry."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Index, UniqueConstraint
from sqlmodel import Field

from foundation.database import new_id
from models.base import Row
from models.columns import (
    Clock,
    JsonObject,
    NullableJson,
    clock_field,
    enum_column,
    instant,
    json_field,
    now_field,
    partial_index,
)
from models.lifecycle import State, Step, check_transition, next_step
from models.transition import Move


class Connection(Row, table=True):
    """A connection: what is wanted and what is true at the Management API. Its work is in `models.work`."""

    __tablename__ = "connection"
    __table_args__ = (
        UniqueConstraint("tenant_id", "provider", "slot"),
        Index("ix_connection_tenant_state", "tenant_id", "state"),
        Index("ix_connection_state_created", "state", "created_at"),
        partial_index("ix_connection_problem", "error_code", "provider", where="error_code IS NOT NULL"),
        partial_index("ix_connection_refused", "provider", "refused_at", where="refused_at IS NOT NULL"),
        partial_index(
            "ix_connection_released", "released_credential_id", where="released_credential_id IS NOT NULL"
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenant.id")
    provider: str = Field(max_length=64)
    slot: str = Field(default="default", max_length=64)
    state: State = Field(default=State.AWAITING_CREDENTIAL, sa_type=enum_column(State))

    # what is wanted, by the newest events; every change raises the revision
    overrides: JsonObject = json_field()
    sealed_credential: str | None = None
    clock: Clock = clock_field()
    revision: int = 1
    correlation_id: str | None = Field(default=None, max_length=64)

    # what is true at the Management API, as far as we know
    remote_credential_id: str | None = Field(default=None, max_length=64, index=True)
    released_credential_id: str | None = Field(default=None, max_length=64)
    """The credential that a removal last deleted: an import that was under way meanwhile must be repeated."""
    remote_sync_id: str | None = Field(default=None, max_length=64, index=True)
    remote_stream_id: str | None = Field(default=None, max_length=64, index=True)
    applied_revision: int = 0
    create_sent_at: datetime | None = instant()
    """When a POST of the sync may last have left us with no certain outcome known."""
    health: str | None = Field(default=None, max_length=64)
    backfill_started_at: datetime | None = instant()
    initial_backfill_completed_at: datetime | None = instant()

    # what went wrong, for people
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = None
    error_advice: str | None = None
    refused_at: datetime | None = instant()
    """Since when every try has been refused, by the provider or by the Management API."""
    change_problem: JsonObject | None = Field(default=None, sa_column=Column(NullableJson, nullable=True))
    """Why the last wanted change could not be made: code, message and advice. The sync goes on without it."""

    ready_at: datetime | None = instant()
    created_at: datetime = now_field()
    updated_at: datetime = now_field()

    @property
    def is_outdated(self) -> bool:
        """Whether the sync at the Management API lacks a wanted change."""
        return self.applied_revision < self.revision

    @property
    def next_step(self) -> Step | None:
        """The step of the lifecycle that this connection asks for."""
        return next_step(self.state, has_sync=self.remote_sync_id is not None)

    def transition_to(self, target: State, *, why: str, attempt: int = 0, task_id: str | None = None) -> Move:
        """Move to another state or raise; the returned move goes into the same transaction."""
        check_transition(self.state, target)
        moved = Move(
            connection_id=self.id,
            tenant_id=self.tenant_id,
            from_state=self.state,
            to_state=target,
            why=why,
            attempt=attempt,
            task_id=task_id,
        )
        self.state = target
        self.updated_at = moved.at
        if target is State.READY and self.ready_at is None:
            self.ready_at = moved.at
        return moved

    def forget_error(self) -> None:
        self.error_code = self.error_message = self.error_advice = self.refused_at = None
