"""The sync object and the bodies that create and change it (contract 2)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from engine.api.credentials import CredentialBody, EmbeddedCredential
from engine.api.oauth_app_shapes import Apps
from engine.api.shapes import Given, Metadata, Name, Never, NotNull
from engine.health import Trouble
from engine.numbers import NUMBER
from engine.providers.catalogue import RateLimit
from engine.tables import Credential, Sync, SyncFrequency, SyncStatus

MAX_AGE_DAYS: Final = 36_500
IMMUTABLE: Final = ("credential", "credential_id", "provider", "stream_id", "external_id")

Age = Annotated[int, Field(ge=1, le=MAX_AGE_DAYS), NUMBER]
CollectionIds = Annotated[
    list[Annotated[str, Field(max_length=200)]],
    Field(min_length=1, max_length=1_000, examples=[["stripe:customer", "stripe:invoice"]]),
]


class SyncBody(Given):
    """Exactly one of `credential` and `credential_id` is required."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": [given],
                    "properties": {given: {"not": {"type": "null"}}, other: {"type": "null"}},
                }
                for given, other in (("credential", "credential_id"), ("credential_id", "credential"))
            ]
        }
    )

    provider: str = Field(examples=["stripe"])
    stream_id: UUID
    name: Name = Field(examples=["Choam Corp - Stripe Production"])
    collection_ids: CollectionIds
    rate_limit: RateLimit | None = Field(default=None, description="the provider's default when omitted")
    credential: CredentialBody | None = None
    credential_id: UUID | None = None
    max_age_days: Age | None = None
    sync_frequency: SyncFrequency = SyncFrequency.CONTINUOUS
    metadata: Metadata = Field(default_factory=dict)
    external_id: Annotated[str, Field(max_length=1_000)] | None = None


class SyncPatch(Given):
    """Only what is given changes; `null` clears `max_age_days`."""

    name: Annotated[Name | None, NotNull()] = None
    collection_ids: Annotated[CollectionIds | None, NotNull()] = None
    rate_limit: RateLimit | None = None
    status: Annotated[SyncStatus | None, NotNull()] = None
    max_age_days: Age | None = None
    sync_frequency: Annotated[SyncFrequency | None, NotNull()] = None
    metadata: Metadata | None = None
    credential: Never = None
    credential_id: Never = None
    provider: Never = None
    stream_id: Never = None
    external_id: Never = None


class BackfillBody(Given):
    """Which collections to read again; all of them when omitted."""

    collection_ids: CollectionIds | None = None


class ProgressState(StrEnum):
    """Where the reading of a collection is."""

    WAITING = "waiting"
    BACKFILLING = "backfilling"
    WATCHING = "watching"
    FAILED = "failed"
    STOPPED = "stopped"


class CollectionProgress(BaseModel):
    """How far a collection is read; the numbers are of the latest pass over it."""

    collection_id: str
    state: ProgressState
    records_read: int
    pages_read: int
    started_at: datetime | None
    completed_at: datetime | None
    last_checked_at: datetime | None = Field(description="when changes were last looked for to the end")
    reason: Trouble | None = Field(default=None, exclude_if=lambda value: value is None)


class SyncProgress(BaseModel):
    """How far a sync is, collection by collection."""

    sync_id: UUID
    data: list[CollectionProgress]


class SyncHealth(BaseModel):
    """Contract 4.2; `reason` is a superset, there while something is wrong."""

    status: str = Field(examples=["healthy"])
    sync_id: UUID
    reason: Trouble | None = Field(default=None, exclude_if=lambda value: value is None)


class SyncObject(BaseModel):
    """A sync (contract 2.1)."""

    id: UUID
    provider: str
    stream_id: UUID
    name: str
    status: str
    org_id: UUID
    health: SyncHealth
    collection_ids: list[str]
    rate_limit: RateLimit
    credential_id: UUID
    credential: EmbeddedCredential
    max_age_days: int | None
    sync_frequency: str
    initial_backfill_completed_at: datetime | None
    metadata: dict[str, JsonValue]
    external_id: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, sync: Sync, credential: Credential, apps: Apps) -> "SyncObject":
        reason = Trouble.model_validate(sync.health_reason) if sync.health_reason else None
        return cls(
            id=sync.id,
            provider=sync.provider,
            stream_id=sync.stream_id,
            name=sync.name,
            status=sync.status,
            org_id=sync.org_id,
            health=SyncHealth(status=sync.health_status, sync_id=sync.id, reason=reason),
            collection_ids=sync.collection_ids,
            rate_limit=RateLimit.model_validate(sync.rate_limit),
            credential_id=credential.id,
            credential=EmbeddedCredential.of(credential, apps),
            max_age_days=sync.max_age_days,
            sync_frequency=sync.sync_frequency,
            initial_backfill_completed_at=sync.initial_backfill_completed_at,
            metadata=sync.meta,
            external_id=sync.external_id,
            created_at=sync.created_at,
            updated_at=sync.updated_at,
        )
