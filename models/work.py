"""The queue of work: for each connection what to do next, when, and who is doing it."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index
from sqlmodel import Field

from models.base import Row
from models.columns import enum_column, instant, partial_index
from models.lifecycle import Step


class Lane(StrEnum):
    """The two kinds of work on one connection. They are due, claimed and retried independently."""

    LIFECYCLE = "lifecycle"
    """Capture, create, poll, remove: exactly one of them is next."""
    CHANGES = "changes"
    """Update: bring the existing sync to what is wanted by now. A refused change never stops the watching."""


class Work(Row, table=True):
    """One piece of work. It is due once `due_at` has passed; a claim moves `due_at` to the end of its lease.

    `turn_at` orders what is due: it equals `due_at`, except for a tenant's surplus. When rows of one tenant
    become due together, each further row gets a later turn, so the first rows of all tenants come before it.
    """

    __tablename__ = "work"
    __table_args__ = (
        partial_index("ix_work_turn", "step", "turn_at", where="turn_at IS NOT NULL"),
        partial_index("ix_work_surplus", "step", "turn_at", where="turn_at > due_at"),
        Index("ix_work_tenant", "tenant_id", "step", "due_at"),
    )

    connection_id: UUID = Field(foreign_key="connection.id", primary_key=True)
    lane: Lane = Field(default=Lane.LIFECYCLE, sa_type=enum_column(Lane), primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenant.id")
    step: Step = Field(sa_type=enum_column(Step))
    due_at: datetime | None = instant()
    """Nothing is due when it is empty."""
    turn_at: datetime | None = instant()
    leased_until: datetime | None = instant()
    fence: int = 0
    """Raised by every claim: a result is recorded only under the fence of its own claim."""
    attempts: int = 0
    """Tries of this step so far, counted before each try."""
    lost_leases: int = 0
    """How often in a row a lease ran out without an outcome: its worker died."""

    def is_leased(self, now: datetime) -> bool:
        return self.leased_until is not None and self.leased_until > now

    def want(self, step: Step | None, *, due_at: datetime, turn_at: datetime | None = None) -> None:
        """Ask for this step with a full set of attempts; no step means that nothing is to be done."""
        self.attempts = 0
        if step is None:
            self.due_at = self.turn_at = None
        else:
            self.step, self.due_at, self.turn_at = step, due_at, turn_at or due_at
