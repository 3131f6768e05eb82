"""How a sync is, decided from the readings of its collections (contract 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, Field

PATIENCE: Final = timedelta(minutes=5)
"""How long what may pass by itself can last before that is an error and not just a warning."""


class HealthStatus(StrEnum):
    INITIALIZING = "initializing"
    HEALTHY = "healthy"
    WARNING = "warning"
    ERROR = "error"


class TroublePart(StrEnum):
    CREDENTIAL = "credential"
    PROVIDER = "provider"
    COLLECTION = "collection"


class TroubleCode(StrEnum):
    CREDENTIAL_REJECTED = "credential_rejected"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    RATE_LIMITED = "rate_limited"
    COLLECTION_FAILED = "collection_failed"
    WORKER_DIED = "worker_died"


PARTS: Final = {
    TroubleCode.CREDENTIAL_REJECTED: TroublePart.CREDENTIAL,
    TroubleCode.PROVIDER_UNAVAILABLE: TroublePart.PROVIDER,
    TroubleCode.RATE_LIMITED: TroublePart.PROVIDER,
    TroubleCode.COLLECTION_FAILED: TroublePart.COLLECTION,
    TroubleCode.WORKER_DIED: TroublePart.COLLECTION,
}
MAY_PASS: Final = frozenset({TroubleCode.PROVIDER_UNAVAILABLE, TroubleCode.WORKER_DIED})
GRAVITY: Final = tuple(PARTS)
"""The first that anyone has is the one to tell."""


class Trouble(BaseModel):
    """What is wrong, since when, and with which part."""

    part: TroublePart
    code: TroubleCode
    message: str
    since: datetime
    collection_id: str | None = Field(default=None, exclude_if=lambda value: value is None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the health needs to know of one collection."""

    has_read: bool
    trouble: Trouble | None


@dataclass(frozen=True, slots=True)
class Health:
    status: HealthStatus
    reason: Trouble | None = None


def decide(readings: Sequence[Reading], now: datetime) -> Health:
    """The gravest trouble of any collection, else healthy as soon as one page has been read."""
    troubles = [reading.trouble for reading in readings if reading.trouble]
    if troubles:
        worst = min(troubles, key=lambda trouble: (GRAVITY.index(trouble.code), trouble.since))
        return Health(_severity(worst, now), worst)
    has_read = any(reading.has_read for reading in readings)
    return Health(HealthStatus.HEALTHY if has_read else HealthStatus.INITIALIZING)


def since(trouble: Trouble, earlier: Trouble | None) -> Trouble:
    """The same trouble as before began when it began; another one begins now."""
    if earlier is None or earlier.code is not trouble.code:
        return trouble
    return trouble.model_copy(update={"since": earlier.since})


def _severity(trouble: Trouble, now: datetime) -> HealthStatus:
    if trouble.code is TroubleCode.RATE_LIMITED:
        return HealthStatus.WARNING
    if trouble.code in MAY_PASS and now - trouble.since < PATIENCE:
        return HealthStatus.WARNING
    return HealthStatus.ERROR
