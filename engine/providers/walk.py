"""What to request at a cursor and where the next page is, for collections with and without parents.

The cursor of a collection with a parent holds where the list of parents goes on, the parents that were read
from it and are not done yet, and the page of the first of them:
`{"parents": cursor, "left": [{"names": {...}, "scope": "1"}, ...], "page": cursor}`.
Parents that have parents themselves are walked the same way: their cursor is one of these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from engine.providers.answer import Answer, UnreadableAnswerError
from engine.providers.catalogue import Provider
from engine.providers.collection import Collection, Parent, RecordPaths
from engine.providers.paging import Cursor
from engine.providers.paths import dig
from engine.providers.urls import fill, placeholders
from engine.tables.base import JsonObject


@dataclass(frozen=True, slots=True)
class Request:
    """A page to get."""

    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    missing: Sequence[int] = ()
    """Statuses that mean an empty page."""
    is_link: bool = False
    """The path comes from the provider and starts at its host."""
    body: JsonObject | None = None
    """Sent by POST, as JSON; without it the page is got."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where the walk goes after a page, and whether it cannot have been there before."""

    following: Cursor | None
    is_onward: bool = False


def request(provider: Provider, collection_id: str, cursor: Cursor | None) -> Request:
    """The request for the page at a cursor."""
    return _request(provider, provider.get(collection_id), cursor)


def is_of_parents(collection: Collection, cursor: Cursor | None) -> bool:
    """Whether the page at this cursor lists parents, not records."""
    return collection.parent is not None and not _left(cursor)


def may_be_skipped(collection: Collection, cursor: Cursor | None, refused: Cursor | None) -> bool:
    """Whether a refused page concerns one parent only.

    A cursor deep in its list may be to blame instead, unless a second walk came by the same one.
    """
    if collection.parent is None or not _left(cursor):
        return False
    return _inner(cursor, "page") is None or cursor == refused


def parent_at(cursor: Cursor | None) -> str:
    """What names the parent whose list is at this cursor."""
    names = next(iter(_left(cursor)), {}).get("names")
    return ", ".join(str(value) for value in names.values()) if isinstance(names, dict) else ""


def scope_of(collection: Collection, cursor: Cursor | None) -> str | None:
    """What sets the ids of the page at this cursor apart, if they need that."""
    left = _left(cursor)
    scope = left[0].get("scope") if collection.parent is not None and left else None
    return scope if isinstance(scope, str) else None


def items(paths: RecordPaths, payload: JsonValue) -> Sequence[JsonValue]:
    """The list in an answer."""
    found = payload if paths.list is None else dig(payload, paths.list)
    if found is None and paths.list is not None and paths.sparse:
        around = paths.list.rpartition(".")[0]
        found = [] if isinstance(dig(payload, around) if around else payload, dict) else None
    if not isinstance(found, list):
        raise UnreadableAnswerError("sent no list of records")
    return found


def ending_with(answer: Answer, found: Sequence[JsonValue]) -> Answer:
    """The answer, knowing the last record of its list."""
    return replace(answer, last=found[-1]) if found else answer


def step(
    provider: Provider, collection_id: str, cursor: Cursor | None, answer: Answer, ids: Sequence[str]
) -> Step:
    """Where to go after a page whose records have these ids."""
    return _step(provider, provider.get(collection_id), cursor, answer, ids)


def _request(provider: Provider, collection: Collection, cursor: Cursor | None) -> Request:
    if collection.parent is None:
        return _of(provider, collection, cursor)
    left = _left(cursor)
    if not left:
        above = provider.collections[collection.parent.collection]
        return _request(provider, above, _inner(cursor, "parents"))
    return _of(provider, collection, _inner(cursor, "page"), left[0], collection.parent.missing)


def _step(
    provider: Provider, collection: Collection, cursor: Cursor | None, answer: Answer, ids: Sequence[str]
) -> Step:
    if collection.parent is None:
        return Step(_following(collection, answer, ids, cursor))
    if not _left(cursor):
        return _after_parents(provider, collection, collection.parent, cursor, answer)
    page = None if answer.is_missing else _following(collection, answer, ids, _inner(cursor, "page"))
    parents = _inner(cursor, "parents")
    left: list[JsonValue] = [*_left(cursor)]
    if page is not None:
        return Step({"parents": parents, "left": left, "page": page})
    is_over = len(left) == 1 and parents is None
    return Step(None if is_over else {"parents": parents, "left": left[1:]}, is_onward=True)


def _following(
    collection: Collection, answer: Answer, ids: Sequence[str], cursor: Cursor | None
) -> Cursor | None:
    return None if collection.has_seen(answer.last) else collection.paging.following(answer, ids, cursor)


def _after_parents(
    provider: Provider, collection: Collection, parent: Parent, cursor: Cursor | None, answer: Answer
) -> Step:
    above, here = provider.collections[parent.collection], _inner(cursor, "parents")
    is_higher = is_of_parents(above, here)
    found = [] if is_higher or answer.is_missing else items(above.record, answer.payload)
    ids = [str(dig(item, above.record.id)) for item in found]
    onward = _step(provider, above, here, ending_with(answer, found), ids)
    parents, below = onward.following, next(iter(_left(here)), {})
    visited = [item for item in found if not parent.is_untouched(item)]
    left: list[JsonValue] = [_named(collection, parent, item, below) for item in visited]
    if not left and parents is None:
        return Step(None)
    is_onward = onward.is_onward if is_higher else parents != here or parents is None
    return Step({"parents": parents, "left": left}, is_onward)


def _named(
    collection: Collection, parent: Parent, item: JsonValue, below: Mapping[str, JsonValue]
) -> JsonValue:
    """What a list below this parent needs of it, and of what the parent is below of."""
    inherited = below.get("names")
    names = dict(inherited) if isinstance(inherited, dict) else {}
    own = [name for name in placeholders(collection.path) if name in parent.names or name not in names]
    names |= {name: dig(item, parent.names.get(name, name)) for name in own}
    if not all(isinstance(value, str | int) for value in names.values()):
        raise UnreadableAnswerError(f"sent a {parent.collection} without {' or '.join(names)}")
    scopes = [below.get("scope"), dig(item, parent.scope) if parent.scope else None]
    scope = ":".join(str(each) for each in scopes if each is not None)
    return {"names": names} | ({"scope": scope} if scope else {})


def _of(
    provider: Provider,
    collection: Collection,
    cursor: Cursor | None,
    below: Mapping[str, JsonValue] | None = None,
    missing: Sequence[int] = (),
) -> Request:
    page = collection.paging.ask(cursor)
    if page.path is not None:
        return Request(page.path, missing=missing, is_link=True)
    names = below.get("names") if below else None
    path = fill(collection.path, names if isinstance(names, dict) else {})
    params, body = collection.params_at(cursor), collection.body_at(cursor)
    return Request(provider.prefix + path, params, missing, body=body)


def _left(cursor: Cursor | None) -> Sequence[dict[str, JsonValue]]:
    left = cursor.get("left") if cursor else None
    return [each for each in left if isinstance(each, dict)] if isinstance(left, list) else []


def _inner(cursor: Cursor | None, name: str) -> Cursor | None:
    inner = cursor.get(name) if cursor else None
    return inner if isinstance(inner, dict) else None
