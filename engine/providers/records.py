"""What a provider's answer says, as pure functions: its records, their ids and times, the next cursor."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from engine.providers.answer import Answer, UnreadableAnswerError
from engine.providers.catalogue import Provider
from engine.providers.collection import RecordPaths
from engine.providers.paging import Cursor
from engine.providers.paths import dig, instant
from engine.providers.walk import ending_with, is_of_parents, items, scope_of, step
from engine.tables.base import JsonObject


@dataclass(frozen=True, slots=True)
class UpstreamRecord:
    """One object as the provider sent it."""

    upstream_id: str
    data: JsonObject
    digest: str
    created_at: datetime | None
    updated_at: datetime | None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: its records, each id once, and where the next page begins."""

    records: Sequence[UpstreamRecord]
    following: Cursor | None
    is_onward: bool = False
    """The walk goes on to what it cannot have met before, whatever this page brought."""
    ages: bool = False
    """All that comes after an old record is older."""
    refusal: str | None = None
    """Why it had to be done without: it would have been of one parent, and others can be read."""


def read_page(provider: Provider, collection_id: str, answer: Answer, cursor: Cursor | None = None) -> Page:
    """Read the answer at a cursor; raises when it is not the list the provider's file promises."""
    collection = provider.get(collection_id)
    if is_of_parents(collection, cursor):
        onward = step(provider, collection_id, cursor, answer, [])
        return Page([], onward.following, onward.is_onward)
    found = [] if answer.is_missing else items(collection.record, answer.payload)
    scope, paths = scope_of(collection, cursor), collection.record
    ids = [_id_of(paths, item) for item in found]
    records = {
        upstream_id: read_record(paths, item, upstream_id)
        for upstream_id, item in ((_scoped(scope, each), item) for each, item in zip(ids, found, strict=True))
        if paths.without is None or dig(item, paths.without) is None
        if all(dig(item, path) == value for path, value in paths.only.items())
    }
    onward = step(provider, collection_id, cursor, ending_with(answer, found), ids)
    return Page(list(records.values()), onward.following, onward.is_onward, collection.ages)


def read_record(paths: RecordPaths, item: JsonValue, upstream_id: str | None = None) -> UpstreamRecord:
    """One object as a record; raises when it has no id."""
    own_id = _id_of(paths, item)
    if not isinstance(item, dict):
        raise UnreadableAnswerError("sent a record that is no object")
    return UpstreamRecord(
        upstream_id=own_id if upstream_id is None else upstream_id,
        data=item,
        digest=hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest(),
        created_at=instant(dig(item, paths.created)) if paths.created else None,
        updated_at=instant(dig(item, paths.updated)) if paths.updated else None,
        deleted=paths.deleted is not None and dig(item, paths.deleted) is True,
    )


def is_older(record: UpstreamRecord, cutoff: datetime) -> bool:
    """Whether it was neither created nor updated since; an undated record never is."""
    latest = _latest(record)
    return latest is not None and latest < cutoff


def gone(upstream_id: str) -> UpstreamRecord:
    """What is left to say of an object that is no longer there."""
    data: JsonObject = {"id": upstream_id}
    return UpstreamRecord(upstream_id, data, digest="", created_at=None, updated_at=None, deleted=True)


def ends_at(page: Page, cutoff: datetime) -> bool:
    """Whether every later page is older too; a page that runs the other way belies the order of its list."""
    moments = [record.created_at for record in page.records if record.created_at is not None]
    if not page.ages or not moments or len(moments) < len(page.records):
        return False
    return moments[-1] < cutoff and moments == sorted(moments, reverse=True)


def _latest(record: UpstreamRecord) -> datetime | None:
    return max(filter(None, (record.created_at, record.updated_at)), default=None)


def _id_of(paths: RecordPaths, item: JsonValue) -> str:
    upstream_id = dig(item, paths.id)
    if not isinstance(upstream_id, str | int) or isinstance(upstream_id, bool):
        raise UnreadableAnswerError("sent a record without an id")
    return str(upstream_id)


def _scoped(scope: str | None, own_id: str) -> str:
    return own_id if scope is None else f"{scope}:{own_id}"
