"""What a message may say. Strict: an unknown field is more likely a mistake than something to ignore."""

import math
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from foundation.database import utc_now
from worker.plans import Wanted
from worker.redaction import redact

FUTURE_TOLERANCE: Final = timedelta(minutes=5)
EARLIEST_YEAR: Final = 2000

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


def _storable(value: JsonValue) -> JsonValue:
    """Refuse what JSON itself does not know (NaN, infinity) and what PostgreSQL cannot hold (NUL)."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _storable(name)
            _storable(inner)
    elif isinstance(value, list):
        for inner in value:
            _storable(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    elif isinstance(value, str) and "\x00" in value:
        raise ValueError("NUL characters cannot be stored; leave them out")
    return value


Metadata = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Credential(Message):
    """A credential to import (contract 6.1). Its properties are secret and passed on as they are."""

    properties: Metadata
    oauth_app_id: Name | None = None
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)

    @field_validator("properties")
    @classmethod
    def _names_its_kind(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        kind = value.get("kind")
        if not isinstance(kind, str) or not kind:
            raise ValueError("kind: expected a text such as stripe_key")
        return value


class ConnectionWish(Wanted, Message):
    """What one connection shall be; what is absent comes from the plan."""

    provider: Word
    slot: Word = "default"
    credential: Credential | None = None
    credential_id: Name | None = None
    name: Name | None = None
    metadata: Metadata | None = None
    status: Literal["active", "disabled"] | None = None

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.credential is not None and self.credential_id is not None:
            raise ValueError("expected at most one of credential and credential_id")
        return self

    @field_validator("collection_ids")
    @classmethod
    def _some_collections(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value:
            raise ValueError("expected at least one collection")
        return value

    def overrides(self) -> dict[str, JsonValue]:
        """The values that this message sets, to be kept on top of the plan's."""
        beside = {"provider", "slot", "credential"}
        return self.model_dump(mode="json", include=self.model_fields_set - beside)


class TenantProfile(Message):
    external_id: Name
    name: Name | None = None
    plan: Word = "default"
    metadata: Metadata = Field(default_factory=dict)
    connections: Annotated[list[ConnectionWish], Field(max_length=1000)] = Field(default_factory=list)

    @field_validator("connections")
    @classmethod
    def _each_once(cls, value: list[ConnectionWish]) -> list[ConnectionWish]:
        seen: set[tuple[str, str]] = set()
        for wish in value:
            if (wish.provider, wish.slot) in seen:
                raise ValueError(
                    f"{wish.provider} with slot {wish.slot} is named twice: give it another slot"
                )
            seen.add((wish.provider, wish.slot))
        return value


class CredentialData(TenantProfile):
    """Only which tenant, and the connections whose credentials are here."""

    @model_validator(mode="after")
    def _only_credentials(self) -> Self:
        surplus = self.model_fields_set - {"external_id", "connections"}
        if surplus:
            raise ValueError(f"{', '.join(sorted(surplus))}: send these with tenant.updated")
        if not any(wish.credential or wish.credential_id for wish in self.connections):
            raise ValueError("connections: expected one with a credential or credential_id")
        return self


class TenantReference(Message):
    external_id: Name


class Event(Message):
    timestamp: AwareDatetime

    @field_validator("timestamp")
    @classmethod
    def _of_our_time(cls, value: AwareDatetime) -> AwareDatetime:
        if value > utc_now() + FUTURE_TOLERANCE:
            raise ValueError("lies in the future; the newest event wins, so it would win for too long")
        if value.year < EARLIEST_YEAR:
            raise ValueError("lies too far in the past")
        return value


class TenantCreated(Event):
    type: Literal["tenant.created"]
    data: TenantProfile


class TenantUpdated(Event):
    """Only the fields that are present change."""

    type: Literal["tenant.updated"]
    data: TenantProfile


class CredentialProvided(Event):
    type: Literal["credential.provided"]
    data: CredentialData


class TenantDeleted(Event):
    type: Literal["tenant.deleted"]
    data: TenantReference


AnyEvent = TenantCreated | TenantUpdated | CredentialProvided | TenantDeleted
_EVENT: Final[TypeAdapter[AnyEvent]] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="type")])


class InvalidEventError(Exception):
    """The message is not one of ours; carries the reasons for each field."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        super().__init__(fields)
        self.fields = fields


def parse(body: bytes) -> AnyEvent:
    """Read a message, or say field by field what is wrong with it, never quoting what it says."""
    try:
        return _EVENT.validate_json(body)
    except ValidationError as exc:
        raise InvalidEventError(_reasons(exc)) from None


def _reasons(exc: ValidationError) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for error in exc.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in error["loc"] if part not in _TYPES) or "body"
        reason = error["msg"].removeprefix("Value error, ")
        if error["type"].startswith("union_tag_"):  # its message quotes the value
            where, reason = "type", f"expected one of {', '.join(sorted(_TYPES))}"
        fields.setdefault(redact(where), []).append(reason)
    return fields


_TYPES: Final = frozenset({"tenant.created", "tenant.updated", "credential.provided", "tenant.deleted"})
