"""What the Management API answers, read tolerantly: its documentation contradicts itself (contract 14).

Unknown fields are ignored, unknown values kept as open strings, and every documented spelling accepted.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from foundation.database import storable

GOOD: Final = "healthy"
UNREPORTED: Final = "unreported"
_SPELLINGS: Final = {"ok": GOOD, "warn": "warning"}
MAX_WORD: Final = 64
MAX_TEXT: Final = 2_000
_BAD: Final = frozenset({"warning", "error"})

Part = Literal["credential", "provider", "collection"]


def parse_timestamp(value: object) -> object:
    """Space or `T`, zero to six digits of a second, `Z`, an offset or nothing (= UTC): contract 1.3."""
    if not isinstance(value, str):
        return value
    moment = datetime.fromisoformat(value.strip())
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside of time") from None


def _readable_or_none(value: object) -> object:
    """A date that does not exist (there is a June 31 in the documentation) where little depends on it."""
    try:
        return parse_timestamp(value)
    except ValueError:
        return None


def _object(value: object) -> object:
    """An empty list was seen on the wire where an empty object was meant (contract 9.2)."""
    return {} if value is None or value == [] else value


Timestamp = Annotated[datetime, BeforeValidator(parse_timestamp)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_object)]


class Remote(BaseModel):
    """An object of the API; what we do not know of it does not hurt."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Health(Remote):
    """One shape for the three that the API has shown (contract 4).

    `status` is `initializing`, `healthy`, `warning`, `error`, a word we do not know, or `unreported`: some
    editions announce health as coming soon, and a sync of theirs is judged by its backfill alone.
    """

    status: str = UNREPORTED
    part: Part | None = None
    message: str | None = None

    @property
    def is_good(self) -> bool:
        return self.status in {GOOD, UNREPORTED}

    @property
    def is_bad(self) -> bool:
        return self.status in _BAD

    @property
    def blames_credential(self) -> bool:
        return self.status == "error" and self.part == "credential"

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, value: object) -> object:
        if isinstance(value, str):
            return {"status": _word(value)}
        if not isinstance(value, Mapping):
            return {}
        status = _word(value.get("status"))
        reason = value.get("reason")
        if isinstance(reason, Mapping):
            return {
                "status": status,
                "part": _part(reason.get("part")),
                "message": _text(reason.get("message")),
            }
        if isinstance(reason, str):
            return {"status": status, "message": _text(reason)}
        return _nested(status, cast("Mapping[str, object]", value))


class RemoteCredential(Remote):
    id: Id
    metadata: Metadata = Field(default_factory=dict)


class RemoteStream(Remote):
    id: Id
    slug: str | None = None


class RemoteRateLimit(Remote):
    allowed_requests: int
    interval: int
    max_concurrent_requests: int = 0


class RemoteSync(Remote):
    """A sync (contract 2.1), as far as provisioning cares."""

    id: Id
    name: str | None = None
    status: str = "active"
    health: Health = Field(default_factory=Health)
    stream_id: Id | None = None
    credential_id: Id | None = None
    collection_ids: tuple[str, ...] = ()
    rate_limit: RemoteRateLimit | None = None
    max_age_days: float | None = None
    sync_frequency: str | None = None
    initial_backfill_completed_at: Timestamp | None = None
    metadata: Metadata = Field(default_factory=dict)
    created_at: Annotated[datetime | None, BeforeValidator(_readable_or_none)] = None

    @model_validator(mode="before")
    @classmethod
    def _credential_id_may_be_embedded(cls, value: object) -> object:
        if isinstance(value, Mapping) and not value.get("credential_id"):
            embedded = value.get("credential")
            if isinstance(embedded, Mapping) and embedded.get("id"):
                return {**value, "credential_id": embedded["id"]}
        return value


def _word(status: object) -> str:
    text = status.strip().lower() if isinstance(status, str) else ""
    text = storable(text, max_length=MAX_WORD) or "unknown"
    return _SPELLINGS.get(text, text)


def _text(value: object) -> str | None:
    return None if value is None else storable(str(value), max_length=MAX_TEXT)


def _part(value: object) -> Part | None:
    for part in get_args(Part):
        if value == part:
            return cast("Part", part)
    return None


def _nested(status: str, value: Mapping[str, object]) -> dict[str, object]:
    """The older shape names the trouble in a part of its own: `credential` or `provider`, with notes."""
    found: dict[str, object] = {"status": status, "message": _notes(value)}
    parts: tuple[Part, ...] = ("credential", "provider")
    for part in parts:
        inner = value.get(part)
        if not isinstance(inner, Mapping):
            continue
        inner_status = _word(inner.get("status"))
        if inner_status in _BAD:
            worst = "error" if "error" in {status, inner_status} else "warning"
            return {"status": worst, "part": part, "message": _notes(inner)}
    return found


def _notes(value: Mapping[str, object]) -> str | None:
    notes = value.get("notes") or value.get("message")
    if isinstance(notes, Iterable) and not isinstance(notes, str):
        notes = " ".join(str(note) for note in notes)
    return _text(notes)
