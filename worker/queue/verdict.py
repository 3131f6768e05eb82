"""A claim before the call and a verdict after it: the two values that queue and steps exchange."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from foundation.database import utc_now
from models import AttemptOutcome, Lane, State, Step
from models.columns import JsonObject

AT_ONCE: Final = timedelta(0)

Key = tuple[UUID, Lane]
"""What identifies a row of work."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claimed row of work with its connection and tenant as they were then."""

    connection_id: UUID
    tenant_id: UUID
    external_id: str
    tenant_name: str | None
    plan: str
    provider: str
    slot: str
    state: State
    overrides: JsonObject
    sealed_credential: str | None
    has_given_credential: bool
    """Whether an event has ever brought a credential for this connection."""
    revision: int
    applied_revision: int
    remote_credential_id: str | None
    remote_sync_id: str | None
    remote_stream_id: str | None
    earlier_create_at: datetime | None
    """When an earlier try may have sent a create whose outcome was never learnt."""
    health: str | None
    backfill_started_at: datetime | None
    initial_backfill_completed_at: datetime | None
    refused_at: datetime | None
    error_code: str | None
    correlation_id: str | None

    step: Step
    fence: int
    attempts: int
    started_at: datetime = field(default_factory=utc_now)
    """By the database's clock."""
    task_id: str | None = None
    claimed_s: float = field(default_factory=time.monotonic)
    """When it was claimed, by this machine's monotonic clock; `started_at` is the database's time."""

    def now(self) -> datetime:
        """The time by the database's clock, which may not be this machine's."""
        return self.started_at + timedelta(seconds=time.monotonic() - self.claimed_s)

    @property
    def lane(self) -> Lane:
        return lane_of(self.step)

    @property
    def key(self) -> Key:
        return self.connection_id, self.lane

    @property
    def is_outdated(self) -> bool:
        """Whether the sync at the Management API lacks a wanted change."""
        return self.applied_revision < self.revision


def lane_of(step: Step) -> Lane:
    return Lane.CHANGES if step is Step.UPDATE else Lane.LIFECYCLE


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for people: a code to search for, a sentence, and what to do."""

    code: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one try. `wait` of None: nothing is due until an event says otherwise."""

    did: str
    """One or two words for the summary of the task: `created`, `adopted`, `to retry`."""
    why: str
    move: State | None = None
    wait: timedelta | None = AT_ONCE
    facts: Mapping[str, object] = field(default_factory=dict)
    """Columns of the connection and what they are now, kept even if the move has been overtaken."""
    problem: Problem | None = None
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED
    is_eventful: bool = True
    """Whether anything happened that is worth recording."""
    is_counted: bool = True
    """Whether a retry brings the connection nearer to being parked."""
    is_refusal: bool = False
    """Whether the provider or the API refused what was asked; refusals that last end in `failed`."""
    tells: bool = True
    """Whether it says anything new to people; a call that was only put off does not."""

    @property
    def is_retry(self) -> bool:
        return self.outcome is AttemptOutcome.TRANSIENT

    @property
    def leaves_attempt(self) -> bool:
        """Whether it belongs into the history of attempts: a success that moved is told by its transition."""
        is_failure = self.outcome is not AttemptOutcome.SUCCEEDED
        return self.tells and (is_failure or (self.is_eventful and self.move is None))
