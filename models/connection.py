"""What a tenant has with one provider: one credential, one sync; the unit of work, of state and of retry."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field

from foundation.database import new_id, utc_now
from models.base import Row
from models.columns import Clock, JsonObject, clock_field, enum_column, instant, json_field, now_field
from models.lifecycle import State, Step, check_transition, next_step
from models.transition import Transition


class Connection(Row, table=True):
    """A connection: what is wanted, what is true at the Management API, and when to look next."""

    __tablename__ = "connection"
    __table_args__ = (
        UniqueConstraint("tenant_id", "provider", "slot"),
        Index(
            "ix_connection_due",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenant.id", index=True)
    provider: str = Field(max_length=64)
    slot: str = Field(default="default", max_length=64)
    state: State = Field(default=State.AWAITING_CREDENTIAL, sa_type=enum_column(State), index=True)

    # what is wanted, by the newest events; every change raises the revision
    overrides: JsonObject = json_field()
    sealed_credential: str | None = None
    clock: Clock = clock_field()
    revision: int = 1
    correlation_id: str | None = Field(default=None, max_length=64)

    # what is true at the Management API, as far as we know
    remote_credential_id: str | None = Field(default=None, max_length=64, index=True)
    remote_sync_id: str | None = Field(default=None, max_length=64)
    remote_stream_id: str | None = Field(default=None, max_length=64, index=True)
    applied_revision: int = 0
    create_sent_at: datetime | None = instant()
    """When a POST of the sync may last have left us with no certain outcome known."""
    health: str | None = Field(default=None, max_length=64)
    backfill_started_at: datetime | None = instant()
    initial_backfill_completed_at: datetime | None = instant()

    # when to look next, and who is looking
    due_at: datetime | None = instant()
    hinted_until: datetime | None = instant()
    """Until then a message about this row is believed to be under way."""
    leased_until: datetime | None = instant()
    fence: int = 0
    attempts: int = 0
    polls: int = 0
    polled_at: datetime | None = instant()

    # what went wrong, for people
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = None
    error_advice: str | None = None

    ready_at: datetime | None = instant()
    created_at: datetime = now_field()
    updated_at: datetime = now_field()

    @property
    def is_outdated(self) -> bool:
        """Whether the sync at the Management API lacks a wanted change."""
        return self.applied_revision < self.revision

    @property
    def next_step(self) -> Step | None:
        return next_step(self.state, is_outdated=self.is_outdated)

    def is_leased(self, now: datetime) -> bool:
        return self.leased_until is not None and self.leased_until > now

    def transition_to(self, target: State, *, why: str, task_id: str | None = None) -> Transition:
        """Move to another state or raise; the returned history row goes into the same transaction."""
        check_transition(self.state, target)
        moved = Transition(
            connection_id=self.id,
            tenant_id=self.tenant_id,
            from_state=self.state,
            to_state=target,
            why=why,
            attempt=self.attempts,
            task_id=task_id,
        )
        self.state = target
        self.updated_at = moved.at
        if target is State.READY and self.ready_at is None:
            self.ready_at = moved.at
        return moved

    def forget_error(self) -> None:
        self.error_code = self.error_message = self.error_advice = None

    def want_now(self, now: datetime | None = None) -> None:
        """Ask for the next step at once, with a full set of attempts."""
        self.due_at = now or utc_now()
        self.attempts = 0
