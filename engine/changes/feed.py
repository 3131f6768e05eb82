"""What a page of events says, and what to make of it: pure functions.

An event carries its object as it was then. That is believed only when it must be newer than what the stream
holds; when it cannot be told, the object is read for itself. So neither the order of events nor events that
come twice matter.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Final
from urllib.parse import quote

from pydantic import JsonValue

from engine.backfill.append import SKEW, Known
from engine.providers.answer import Answer, UnreadableAnswerError
from engine.providers.catalogue import Provider
from engine.providers.changes import EventFeed
from engine.providers.collection import RecordPaths
from engine.providers.paging import Cursor
from engine.providers.paths import dig
from engine.providers.records import UpstreamRecord, read_record
from engine.providers.walk import Request, items

GONE: Final = (404, 410)


@dataclass(frozen=True, slots=True)
class Touch:
    """What the newest event of an object on a page says."""

    collection_id: str
    record: UpstreamRecord
    at: datetime
    is_contested: bool = False
    """Another event of the same object has the same time."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """One answer of a feed."""

    touches: Sequence[Touch]
    newest: datetime | None
    following: Cursor | None


class Verdict(Enum):
    """What to do about a touch."""

    APPEND = auto()
    PASS_OVER = auto()
    ASK = auto()


def events_request(provider: Provider, feed: EventFeed, since: datetime, cursor: Cursor | None) -> Request:
    """The request for a page of events."""
    page = feed.paging.ask(cursor)
    if page.path is not None:
        return Request(page.path, is_link=True)
    return Request(provider.prefix + feed.path, {**feed.params_since(since), **page.params})


def object_request(provider: Provider, feed: EventFeed, collection_id: str, upstream_id: str) -> Request:
    """The request for one object; one that is gone is an empty answer."""
    path = feed.object_path.format(path=provider.get(collection_id).path, id=quote(upstream_id, safe=""))
    return Request(provider.prefix + path, missing=GONE)


def read_events(
    provider: Provider, feed: EventFeed, wanted: Collection[str], answer: Answer, cursor: Cursor | None
) -> EventPage:
    """Read an answer; raises when it is not the list of events that the provider's file promises."""
    paths = RecordPaths(list=feed.list, id=feed.id, created=feed.created)
    events = [read_record(paths, item) for item in items(paths, answer.payload)]
    if any(event.created_at is None for event in events):
        raise UnreadableAnswerError("sent an event without a time")
    touches = [touch for event in events for touch in _touches(provider, feed, wanted, event)]
    newest = max((event.created_at for event in events if event.created_at), default=None)
    following = feed.paging.following(answer, [event.upstream_id for event in events], cursor)
    return EventPage(newest_of_each(touches), newest, following)


def newest_of_each(touches: Iterable[Touch]) -> Sequence[Touch]:
    """One touch per object, whatever the order; contested when two share the newest time."""
    newest: dict[tuple[str, str], Touch] = {}
    for touch in touches:
        key = (touch.collection_id, touch.record.upstream_id)
        before = newest.get(key)
        if before is None or touch.at > before.at:
            newest[key] = touch
        elif touch.at == before.at:
            newest[key] = replace(before, is_contested=True)
    return list(newest.values())


def judge_touch(touch: Touch, known: Known | None, passed_at: datetime | None = None) -> Verdict:
    """Whether the event's object is newer than what the stream holds, or than a pass that did not meet it."""
    as_of = passed_at if known is None else known.as_of
    if known is not None and known.as_of > touch.at + SKEW:
        return Verdict.PASS_OVER
    if touch.is_contested:
        return Verdict.ASK
    if as_of is None or touch.at > as_of + SKEW:
        return Verdict.APPEND
    is_as_it_was = touch.record.deleted if known is None else known.equals(touch.record)
    return Verdict.PASS_OVER if is_as_it_was else Verdict.ASK


def _touches(
    provider: Provider, feed: EventFeed, wanted: Collection[str], event: UpstreamRecord
) -> Iterator[Touch]:
    at = event.created_at
    if at is None:
        return
    own = f"{provider.name}:{feed.own_collection}"
    if own in wanted:
        yield Touch(own, event, at)
    about = dig(event.data, feed.object)
    collection_id = f"{provider.name}:{dig(about, feed.collection)}"
    if collection_id not in wanted or provider.changes_of(collection_id) is not feed:
        return
    if (record := _object(provider, collection_id, about)) is not None:
        is_gone = dig(event.data, feed.type) in feed.deleted_types
        touched = replace(record, updated_at=record.updated_at or at, deleted=record.deleted or is_gone)
        yield Touch(collection_id, touched, at)


def _object(provider: Provider, collection_id: str, about: JsonValue) -> UpstreamRecord | None:
    """An event may be about what has no id, such as an upcoming invoice: nothing of a collection then."""
    try:
        return read_record(provider.get(collection_id).record, about)
    except UnreadableAnswerError:
        return None
