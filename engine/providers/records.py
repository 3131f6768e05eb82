"""What a provider's answer says, as pure functions: its records, their ids and times, the next cursor."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from engine.providers.catalogue import Provider, RecordPaths
from engine.providers.paging import Cursor
from engine.tables.base import JsonObject


class UnreadableAnswerError(Exception):
    """A successful answer that holds no list of records with ids."""


@dataclass(frozen=True, slots=True)
class UpstreamRecord:
    """One object as the provider sent it."""

    upstream_id: str
    data: JsonObject
    digest: str
    created_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: its records, each id once, and where the next page begins."""

    records: Sequence[UpstreamRecord]
    following: Cursor | None


def read_page(provider: Provider, collection_id: str, payload: JsonValue) -> Page:
    """Read an answer; raises when it is not the list the provider's file promises."""
    paths = provider.paths(collection_id)
    items = dig(payload, paths.list)
    if not isinstance(payload, dict) or not isinstance(items, list):
        raise UnreadableAnswerError("no list of records")
    records = {record.upstream_id: record for record in (_read_record(paths, item) for item in items)}
    return Page(list(records.values()), provider.paging.following(payload, list(records)))


def dig(value: JsonValue, path: str) -> JsonValue:
    """What lies at a dotted path, or nothing."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def instant(value: JsonValue) -> datetime | None:
    """A provider's timestamp, in seconds since 1970 or ISO 8601; nothing when it is neither."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed and parsed.tzinfo is None else parsed


def is_older(record: UpstreamRecord, cutoff: datetime) -> bool:
    """Whether it was neither created nor updated since; an undated record never is."""
    latest = max(filter(None, (record.created_at, record.updated_at)), default=None)
    return latest is not None and latest < cutoff


def ends_at(page: Page, cutoff: datetime) -> bool:
    """Whether every later page is older too: this one runs from new to old and has passed the cutoff."""
    if len(page.records) < 2:
        return False
    first, last = page.records[0], page.records[-1]
    if first.created_at is None or last.created_at is None:
        return False
    return first.created_at > last.created_at and is_older(last, cutoff)


def _read_record(paths: RecordPaths, item: JsonValue) -> UpstreamRecord:
    upstream_id = dig(item, paths.id)
    if not isinstance(item, dict) or not isinstance(upstream_id, str | int) or isinstance(upstream_id, bool):
        raise UnreadableAnswerError("a record without an id")
    return UpstreamRecord(
        upstream_id=str(upstream_id),
        data=item,
        digest=hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest(),
        created_at=instant(dig(item, paths.created)) if paths.created else None,
        updated_at=instant(dig(item, paths.updated)) if paths.updated else None,
    )
