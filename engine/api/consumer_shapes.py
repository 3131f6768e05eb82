"""Consumers, their messages and the records inside (contract 9.2, 10)."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, JsonValue, model_validator

from engine.api.shapes import Given, Metadata, Name, Never
from engine.delivery import DeliverPolicy, Message, Pending
from engine.errors import BadRequestError
from engine.numbers import NUMBER
from engine.tables import Consumer

MAX_TOKENS: Final = 10_000

AckWait = Annotated[int, Field(ge=1, le=86_400_000), NUMBER]


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("must be at least 1, or -1 for unlimited")
    return value


MaxDeliver = Annotated[
    int,
    Field(ge=-1, le=1_000_000, description="-1: unlimited", json_schema_extra={"not": {"const": 0}}),
    AfterValidator(_not_zero),
    NUMBER,
]
MaxAckPending = Annotated[int, Field(ge=1, le=100_000), NUMBER]


class Configuration(Given):
    """`ack_wait` is the older name of `ack_wait_ms` (contract 10.1)."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: object) -> object:
        if isinstance(value, dict) and "ack_wait" in value:
            return {"ack_wait_ms": value["ack_wait"]} | value
        return value


class ConsumerBody(Configuration):
    """What a consumer is made of."""

    stream_id: UUID
    deliver_policy: DeliverPolicy = DeliverPolicy.ALL
    ack_wait_ms: AckWait = 30_000
    max_deliver: MaxDeliver = -1
    max_ack_pending: MaxAckPending = 1_000
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)


class ConsumerPatch(Configuration):
    """Only what is given changes; a change of `deliver_policy` begins anew."""

    deliver_policy: DeliverPolicy | None = None
    ack_wait_ms: AckWait | None = None
    max_deliver: MaxDeliver | None = None
    max_ack_pending: MaxAckPending | None = None
    name: Name | None = None
    metadata: Metadata | None = None
    stream_id: Never = None


class ConsumerObject(BaseModel):
    """An HTTP consumer."""

    id: UUID
    stream_id: UUID
    deliver_policy: str
    ack_wait_ms: int
    max_deliver: int
    max_ack_pending: int
    name: str | None
    metadata: dict[str, JsonValue] = Field(validation_alias="meta")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, consumer: Consumer) -> "ConsumerObject":
        return cls.model_validate(consumer, from_attributes=True)


class RecordSync(BaseModel):
    """Whose record it is."""

    id: UUID
    external_id: str | None
    metadata: dict[str, JsonValue]


class RecordObject(BaseModel):
    """A record (contract 9.2)."""

    id: UUID
    collection_id: str
    provider: str
    stream_id: UUID
    sync: RecordSync
    data: dict[str, JsonValue]
    deleted: bool
    updated_idx: int
    upstream_id: str
    upstream_created_at: datetime | None
    upstream_updated_at: datetime | None
    inserted_at: datetime


class MessageObject(BaseModel):
    """A record handed out, and what to acknowledge it with."""

    ack_token: str
    record: RecordObject

    @classmethod
    def of(cls, message: Message) -> "MessageObject":
        record, sync = message.record, message.sync
        shown = RecordObject(
            id=record.id,
            collection_id=record.collection_id,
            provider=sync.provider,
            stream_id=record.stream_id,
            sync=RecordSync(id=sync.id, external_id=sync.external_id, metadata=sync.meta),
            data=record.data,
            deleted=record.deleted,
            updated_idx=record.updated_idx,
            upstream_id=record.upstream_id,
            upstream_created_at=record.upstream_created_at,
            upstream_updated_at=record.upstream_updated_at,
            inserted_at=record.created_at,
        )
        return cls(ack_token=write_token(message.token), record=shown)


class Info(BaseModel):
    """What is left after this batch."""

    num_pending: int = Field(description="available and not handed out; counted up to 10000")
    num_ack_pending: int = Field(description="handed out and not acknowledged in time; counted up to 10000")

    @classmethod
    def of(cls, pending: Pending) -> "Info":
        return cls(num_pending=pending.num_pending, num_ack_pending=pending.num_ack_pending)


class Batch(BaseModel):
    """The answer to `next`."""

    data: list[MessageObject]
    info: Info


class Tokens(Given):
    """Which messages are meant."""

    ack_tokens: list[str] = Field(json_schema_extra={"minItems": 1, "maxItems": MAX_TOKENS})

    def read(self) -> list[UUID]:
        """The tokens, or 400 when there are none or one was not made here."""
        if not 0 < len(self.ack_tokens) <= MAX_TOKENS:
            raise BadRequestError(f"ack_tokens must hold 1 to {MAX_TOKENS} tokens")
        return [read_token(token) for token in self.ack_tokens]


def write_token(token: UUID) -> str:
    return base64.urlsafe_b64encode(token.bytes).decode().rstrip("=")


def read_token(text: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(text + "=="))
    except (ValueError, binascii.Error):
        raise BadRequestError("Malformed ack token") from None
