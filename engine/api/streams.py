"""`/v1/streams` (contract 9.1)."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints
from sqlmodel import Session

from engine.api.body import JsonRoute
from engine.api.caller import Authenticated, Caller
from engine.api.deletion import delete_unused
from engine.api.idempotency import Key, create_once, once_only
from engine.api.listing import Listed, Page, equal
from engine.api.shapes import Deleted, Given
from engine.errors import InvalidError
from engine.owned import Lock, find, owned
from engine.tables import Consumer, Stream, Sync
from foundation.database import utc_now

router = APIRouter(prefix="/v1/streams", tags=["streams"], route_class=JsonRoute)
ROUTE: Final = "POST /v1/streams"


class StreamBody(Given):
    """A stream is known by its slug, unique in the organisation."""

    slug: Annotated[str, StringConstraints(min_length=1, max_length=255)]


class StreamObject(BaseModel):
    """A stream."""

    id: UUID
    slug: str
    org_id: UUID
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, stream: Stream) -> "StreamObject":
        return cls.model_validate(stream, from_attributes=True)


@router.post("")
def create(caller: Authenticated, key: Key, body: StreamBody) -> StreamObject:
    """Create a stream."""
    once = once_only(key, ROUTE, body)

    def stream_of(session: Session) -> Stream:
        _refuse_taken(session, caller, body.slug)
        return Stream(org_id=caller.org_id, slug=body.slug)

    def work(session: Session) -> Stream:
        return create_once(session, caller, once, Stream, lambda: stream_of(session))

    return StreamObject.of(caller.write(work))


@router.get("")
def list_(caller: Authenticated, page: Page, slug: str | None = None) -> Listed[StreamObject]:
    """List streams."""
    statement = owned(Stream, caller.org_id).where(*equal(Stream, slug=slug))
    with caller.read() as session:
        rows, following = page.cut(session.exec(page.select(statement, Stream)).all(), lambda row: row)
    return Listed(data=[StreamObject.of(row) for row in rows], next_cursor=following)


@router.get("/{stream_id}")
def get(caller: Authenticated, stream_id: str) -> StreamObject:
    """Get a stream."""
    with caller.read() as session:
        return StreamObject.of(find(session, Stream, caller.org_id, stream_id))


@router.patch("/{stream_id}")
def update(caller: Authenticated, stream_id: str, body: StreamBody) -> StreamObject:
    """Change a stream's slug."""

    def work(session: Session) -> Stream:
        stream = find(session, Stream, caller.org_id, stream_id, Lock.CHANGE)
        if stream.slug != body.slug:
            _refuse_taken(session, caller, body.slug)
        stream.slug = body.slug
        stream.updated_at = utc_now()
        return stream

    return StreamObject.of(caller.write(work))


@router.delete("/{stream_id}")
def delete(caller: Authenticated, stream_id: str) -> Deleted:
    """Delete a stream that no sync and no consumer uses any more."""
    return delete_unused(caller, Stream, stream_id, {Sync: "stream_id", Consumer: "stream_id"})


def _refuse_taken(session: Session, caller: Caller, slug: str) -> None:
    taken = owned(Stream, caller.org_id).where(Stream.slug == slug)
    if session.exec(taken).first() is not None:
        raise InvalidError({"slug": ["has already been taken"]})
