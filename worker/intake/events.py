"""What a message may say.

Known fields are read strictly. A field or a type that we do not know is ignored and named in the answer:
senders add both without asking, and a misspelt field must not vanish silently.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from foundation.database import utc_now
from worker.plans import Wanted
from worker.redaction import redact

FUTURE_TOLERANCE: Final = timedelta(minutes=5)
EARLIEST_YEAR: Final = 2000
MOST_IGNORED: Final = 20
"""How many unknown fields an answer names."""
CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
REUSED_ID: Final = "was used before for another event, which was stored; send this one under an id of its own"

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
OptionalName = Annotated[Name | None, BeforeValidator(lambda value: None if value == "" else value)]
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


def _addressable(value: str) -> str:
    """Refuse what cannot be part of an address: clients shorten dots, routers end at line breaks."""
    if value in {".", ".."}:
        raise ValueError("a dot or two cannot be part of an address; give the tenant another id")
    if CONTROLS.search(value):
        raise ValueError("control characters such as line breaks cannot be part of an address")
    return value


def _has_text(value: JsonValue) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_text(each) for each in inner)


ExternalId = Annotated[Name, AfterValidator(_addressable)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Credential(Message):
    """A credential to import (contract 6.1). Its properties are secret and passed on as they are."""

    properties: Metadata
    oauth_app_id: OptionalName = None
    name: OptionalName = None
    metadata: Metadata = Field(default_factory=dict)

    @field_validator("properties")
    @classmethod
    def _has_kind_and_secret(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        kind = value.get("kind")
        if not isinstance(kind, str) or not kind:
            raise ValueError("kind: expected a text such as stripe_key")
        if not any(_has_text(inner) for name, inner in value.items() if name != "kind"):
            raise ValueError("expected the secret beside kind, such as secret or access_token")
        return value

    @property
    def kind(self) -> str:
        return str(self.properties["kind"])


class ConnectionWish(Wanted, Message):
    """What one connection shall be; what is absent comes from the plan."""

    provider: Word
    slot: Word = "default"
    credential: Credential | None = None
    credential_id: OptionalName = None
    name: OptionalName = None
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
    external_id: ExternalId
    name: OptionalName = None
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
    external_id: ExternalId


class Event(Message):
    timestamp: AwareDatetime
    _ignored: tuple[str, ...] = PrivateAttr(default=())

    @property
    def ignored(self) -> tuple[str, ...]:
        """The fields of the message that we do not know."""
        return self._ignored

    @cached_property
    def digest(self) -> str:
        """Tells this event from another: the same for any spelling of the JSON and any timestamp."""
        meaning = self.model_dump(mode="json", exclude={"timestamp"}, exclude_unset=True)
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

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
TYPES: Final = frozenset({"tenant.created", "tenant.updated", "credential.provided", "tenant.deleted"})
TYPE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")
_EVENT: Final[TypeAdapter[AnyEvent]] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="type")])


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """A message of a type that is not ours. It changes nothing."""

    type: str


class InvalidEventError(Exception):
    """The message is not one of ours; carries the reasons for each field."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        super().__init__(fields)
        self.fields = fields


def parse(body: bytes) -> AnyEvent | UnknownEvent:
    """Read a message, or say field by field what is wrong with it, never quoting what it says."""
    try:
        return _EVENT.validate_json(body)
    except ValidationError as exc:
        return _parse_leniently(body, exc)


def _parse_leniently(body: bytes, exc: ValidationError) -> AnyEvent | UnknownEvent:
    errors = exc.errors(include_url=False)
    unknown = _unknown_type(errors)
    if unknown is not None:
        return UnknownEvent(redact(unknown))
    ignored = [_where(error["loc"]) for error in errors if error["type"] == "extra_forbidden"]
    if not ignored:
        raise InvalidEventError(_reasons(body, errors)) from None
    try:
        event = _EVENT.validate_json(body, extra="ignore")
    except ValidationError as again:
        raise InvalidEventError(_reasons(body, again.errors(include_url=False))) from None
    event._ignored = tuple(ignored[:MOST_IGNORED])
    return event


def _unknown_type(errors: Sequence[ErrorDetails]) -> str | None:
    """The type, if it can be the name of one that is not ours."""
    if [error["type"] for error in errors] != ["union_tag_invalid"]:
        return None
    kind = errors[0]["input"]["type"]
    return kind if isinstance(kind, str) and TYPE_NAME.fullmatch(kind) else None


def _reasons(body: bytes, errors: Sequence[ErrorDetails]) -> dict[str, list[str]]:
    if not _is_utf8(body):
        return {"body": ["expected UTF-8"]}
    fields: dict[str, list[str]] = {}
    for error in errors:
        where, reason = _where(error["loc"]), error["msg"].removeprefix("Value error, ")
        if error["type"].startswith("union_tag_"):  # its message quotes the value
            where, reason = "type", f"expected one of {', '.join(sorted(TYPES))}"
        fields.setdefault(where, []).append(reason)
    return fields


def _where(loc: Sequence[int | str]) -> str:
    return redact(".".join(str(part) for part in loc if part not in TYPES) or "body")


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
