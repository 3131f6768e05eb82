"""`/v1/http-consumers` (contract 10): manage them, read through them, acknowledge."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlmodel import Session, col
from starlette.concurrency import run_in_threadpool

from engine.api.body import JsonRoute
from engine.api.caller import Authenticated, Caller, Reading
from engine.api.consumer_shapes import (
    Batch,
    ConsumerBody,
    ConsumerObject,
    ConsumerPatch,
    Info,
    MessageObject,
    Tokens,
)
from engine.api.deletion import delete_unused
from engine.api.idempotency import Key, create_once, once_only
from engine.api.listing import Listed, MetadataFilter, Page, equal
from engine.api.shapes import Deleted, Failure, Given
from engine.delivery import (
    DeliverPolicy,
    acknowledge,
    can_fill,
    pending,
    refuse,
    rewind,
    starting_position,
    take,
)
from engine.errors import ClientGoneError, InvalidError, NotFoundError
from engine.numbers import NUMBER
from engine.owned import Lock, find, owned
from engine.tables import Consumer, Stream
from engine.transactions import retrying
from foundation.database import utc_now

router = APIRouter(prefix="/v1/http-consumers", tags=["http consumers"], route_class=JsonRoute)

ROUTE: Final = "POST /v1/http-consumers"
MAX_BATCH: Final = 1_000
MAX_WAIT_MS: Final = 300_000
FIRST_PAUSE_S: Final = 0.05
TOO_MANY: Final[dict[int | str, dict[str, Any]]] = {429: {"model": Failure}}

BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH)]
WaitFor = Annotated[int, Field(ge=0, le=MAX_WAIT_MS, description="milliseconds to wait for a full batch")]


class NextBody(Given):
    """The same parameters as the query's, for those who POST."""

    batch_size: Annotated[BatchSize, NUMBER] | None = None
    wait_for: Annotated[WaitFor, NUMBER] | None = None


@router.post("")
def create(caller: Authenticated, key: Key, body: ConsumerBody) -> ConsumerObject:
    """Create a consumer of a stream."""
    once = once_only(key, ROUTE, body)

    def consumer_of(session: Session) -> Consumer:
        stream = _stream(session, caller, body.stream_id)
        return Consumer(
            org_id=caller.org_id,
            stream_id=stream.id,
            name=body.name,
            deliver_policy=body.deliver_policy,
            ack_wait_ms=body.ack_wait_ms,
            max_deliver=body.max_deliver,
            max_ack_pending=body.max_ack_pending,
            meta=body.metadata,
            position=starting_position(session, stream, body.deliver_policy, utc_now()),
        )

    def work(session: Session) -> Consumer:
        return create_once(session, caller, once, Consumer, lambda: consumer_of(session))

    return ConsumerObject.of(caller.write(work))


@router.get("")
def list_(
    caller: Authenticated,
    page: Page,
    metadata: MetadataFilter,
    stream_id: UUID | None = None,
    name: Annotated[str | None, Query(description="exactly this name")] = None,
) -> Listed[ConsumerObject]:
    """List consumers."""
    statement = owned(Consumer, caller.org_id).where(
        metadata.within(col(Consumer.meta)), *equal(Consumer, stream_id=stream_id, name=name)
    )
    with caller.read() as session:
        rows, following = page.cut(session.exec(page.select(statement, Consumer)).all(), lambda row: row)
    return Listed(data=[ConsumerObject.of(row) for row in rows], next_cursor=following)


@router.get("/{consumer_id}")
def get(caller: Authenticated, consumer_id: str) -> ConsumerObject:
    """Get a consumer."""
    with caller.read() as session:
        return ConsumerObject.of(find(session, Consumer, caller.org_id, consumer_id))


@router.patch("/{consumer_id}")
def update(caller: Authenticated, consumer_id: str, body: ConsumerPatch) -> ConsumerObject:
    """Change a consumer."""

    def work(session: Session) -> Consumer:
        consumer = find(session, Consumer, caller.org_id, consumer_id, Lock.CHANGE)
        for field in ("ack_wait_ms", "max_deliver", "max_ack_pending"):
            if (value := getattr(body, field)) is not None:
                setattr(consumer, field, value)
        if "name" in body.model_fields_set:
            consumer.name = body.name
        if "metadata" in body.model_fields_set:
            consumer.meta = body.metadata or {}
        if body.deliver_policy is not None and body.deliver_policy != consumer.deliver_policy:
            stream = find(session, Stream, caller.org_id, consumer.stream_id)
            rewind(session, consumer, stream, body.deliver_policy, utc_now())
        consumer.updated_at = utc_now()
        return consumer

    return ConsumerObject.of(caller.write(work))


@router.post("/{consumer_id}/reset")
def reset(caller: Authenticated, consumer_id: str) -> ConsumerObject:
    """Begin anew where the `deliver_policy` says; what was handed out before may come again."""

    def work(session: Session) -> Consumer:
        consumer = find(session, Consumer, caller.org_id, consumer_id, Lock.CHANGE)
        stream = find(session, Stream, caller.org_id, consumer.stream_id)
        rewind(session, consumer, stream, DeliverPolicy(consumer.deliver_policy), utc_now())
        consumer.updated_at = utc_now()
        return consumer

    return ConsumerObject.of(caller.write(work))


@router.delete("/{consumer_id}")
def delete(caller: Authenticated, consumer_id: str) -> Deleted:
    """Delete a consumer; the stream keeps its records."""
    return delete_unused(caller, Consumer, consumer_id)


@router.get("/{consumer_id}/next", responses=TOO_MANY)
async def next_(
    caller: Reading,
    request: Request,
    consumer_id: str,
    batch_size: Annotated[BatchSize, Query()] = 1,
    wait_for: Annotated[WaitFor, Query()] = 0,
) -> Batch:
    """Receive the next messages: those due again first, then new ones in order."""
    return await _next(caller, request, consumer_id, batch_size, wait_for)


@router.post("/{consumer_id}/next", responses=TOO_MANY)
async def next_by_post(
    caller: Reading,
    request: Request,
    consumer_id: str,
    body: NextBody | None = None,
    batch_size: Annotated[BatchSize, Query()] = 1,
    wait_for: Annotated[WaitFor, Query()] = 0,
) -> Batch:
    """The same, with the parameters in the body or in the query."""
    given = body or NextBody()
    return await _next(
        caller, request, consumer_id, given.batch_size or batch_size, given.wait_for or wait_for
    )


@router.post("/{consumer_id}/ack", status_code=204)
def ack(caller: Reading, consumer_id: str, body: Tokens) -> Response:
    """Acknowledge messages. Doing it twice is harmless."""
    tokens = body.read()

    def work(session: Session) -> None:
        acknowledge(session, find(session, Consumer, caller.org_id, consumer_id, Lock.CHANGE), tokens)

    caller.write(work)
    return Response(status_code=204)


@router.post("/{consumer_id}/nack", status_code=204)
def nack(caller: Reading, consumer_id: str, body: Tokens) -> Response:
    """Give messages back; they are available at once."""
    tokens = body.read()

    def work(session: Session) -> None:
        refuse(session, find(session, Consumer, caller.org_id, consumer_id, Lock.CHANGE), tokens)

    caller.write(work)
    return Response(status_code=204)


async def _next(caller: Caller, request: Request, consumer_id: str, batch_size: int, wait_for: int) -> Batch:
    if wait_for > 0:
        with caller.services.polls.waiting(caller.org_id):
            await _wait(caller, request, partial(_can_fill, caller, consumer_id, batch_size), wait_for)
    return await run_in_threadpool(_take, caller, consumer_id, batch_size)


async def _wait(caller: Caller, request: Request, is_filled: Callable[[], bool], wait_for: int) -> None:
    """Wait so many milliseconds at most, or until the batch can be filled."""
    polls, until, pause_s = caller.services.polls, time.monotonic() + wait_for / 1000, FIRST_PAUSE_S
    while (left_s := until - time.monotonic()) > 0 and not caller.services.is_stopping():
        if await polls.look(is_filled):
            return
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, polls.longest_pause_s)
        if await request.is_disconnected():
            raise ClientGoneError  # what it took now would be out of reach until its time is up


def _can_fill(caller: Caller, consumer_id: str, batch_size: int) -> bool:
    with caller.read() as session:
        consumer = find(session, Consumer, caller.org_id, consumer_id)
        return can_fill(session, consumer, utc_now(), batch_size)


def _take(caller: Caller, consumer_id: str, batch_size: int) -> Batch:
    """Readers of one consumer take turns at its row, so that no two get the same message."""

    def work(session: Session) -> Batch:
        consumer = find(session, Consumer, caller.org_id, consumer_id, Lock.CHANGE)
        now = utc_now()
        messages = take(session, consumer, now, batch_size)
        info = Info.of(pending(session, consumer, now))
        return Batch(data=[MessageObject.of(message) for message in messages], info=info)

    return retrying(caller.services.database, work)


def _stream(session: Session, caller: Caller, stream_id: UUID) -> Stream:
    try:
        return find(session, Stream, caller.org_id, stream_id, Lock.REFER)
    except NotFoundError as exc:
        raise InvalidError({"stream_id": [exc.summary]}) from None
