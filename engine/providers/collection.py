"""What a collection is: where its list is, how it pages, what its records are, how its changes are seen."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import Field, JsonValue

from engine.providers.changes import OWN_PATH, Gone, UpdatedSince
from engine.providers.paging import Cursor, Paging
from engine.providers.part import Part
from engine.providers.paths import dig, instant
from engine.providers.template import Values, filled, filled_text, placed
from engine.tables.base import JsonObject

NAME: Final = "{name}"
TOUCH_SLACK: Final = timedelta(minutes=10)
"""A parent may tell late that it was touched."""


class RecordPaths(Part):
    """Where a page holds its records, and a record its id and times; dots go deeper."""

    list: str | None = None
    """Without it, the answer itself is the list."""
    sparse: bool = False
    """An empty list is left out of the answer."""
    id: str = "id"
    created: str | None = None
    updated: str | None = None
    deleted: str | None = None
    """A flag; true once the object is gone."""
    without: str | None = None
    """What has a value here belongs to another collection and is passed over."""
    only: Mapping[str, str] = Field(default_factory=dict)
    """What has other values than these is passed over."""


class Parent(Part):
    """A collection that has to be walked first, as each of its records has a list of its own."""

    collection: str
    names: Mapping[str, str] = Field(default_factory=dict)
    """Where a parent holds what the placeholders of the path stand for, if not in fields of the same names.
    What the parent's own path took of its parent can be used as well."""
    scope: str | None = None
    """Where a parent holds an id that sets the ids of its records apart from those of other parents."""
    missing: tuple[int, ...] = (404, 410)
    """Statuses of a list that mean that this parent has none."""
    touched: str | None = None
    """Where a parent tells when its list was last added to: looks for changes pass over those of before."""
    since: datetime | None = None
    """Set in a look for changes: what was not touched since is passed over."""

    def is_untouched(self, item: JsonValue) -> bool:
        """Whether a look need not visit this parent."""
        touched_at = instant(dig(item, self.touched)) if self.touched else None
        return touched_at is not None and self.since is not None and touched_at < self.since


class Collection(Part):
    """One kind of upstream object; `{name}` in the path is a value of the parent."""

    path: str
    words: Mapping[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """What placeholders in parameters and body stand for; a list is joined with commas in a parameter."""
    params: Mapping[str, str] = Field(default_factory=dict)
    body: JsonObject | None = None
    """Sent by POST, as JSON; what paging asks for then goes in there. Without it a list is got."""
    record: RecordPaths
    paging: Paging
    parent: Parent | None = None
    changes: UpdatedSince | None = None
    """Instead of the provider's feed."""
    newest_first: bool = False
    """The list runs from what was created last to what was created first."""
    forgets: bool = False
    """Old objects drop off the list, so that absence does not mean deleted."""
    back_to: datetime | None = None
    """Set in a look at a list that runs from new to old: what comes after has been seen."""

    @property
    def ages(self) -> bool:
        """Whether all that comes after an old record is older: creation is the last thing its list knows."""
        return self.newest_first and self.parent is None and self.record.updated is None

    def has_seen(self, record: JsonValue) -> bool:
        """Whether a look has come to where the one before it began."""
        updated_at = instant(dig(record, self.record.updated)) if self.record.updated else None
        return updated_at is not None and self.back_to is not None and updated_at < self.back_to

    def narrowed(self, changes: UpdatedSince, since: datetime) -> "Collection":
        """The same collection, whose list holds only what changed since a moment."""
        own = self.params if changes.path is None else {}
        parent = self.parent and self.parent.model_copy(update={"since": since - TOUCH_SLACK})
        narrow = {
            "path": changes.path_for(self.path),
            "params": {**own, **changes.params_since(since)},
            "body": changes.body_since(since) or self.body,
            "paging": changes.paging_since(self.paging, since),
            "parent": parent,
            "back_to": changes.back_to(since) if changes.newest_first else None,
        }
        return self.model_copy(update=narrow)

    def swept(self, gone: Gone, since: datetime) -> "Collection":
        """The list of what is gone in place of the collection's own."""
        instead = {
            "path": gone.path.replace(OWN_PATH, self.path),
            "params": gone.params_since(since),
            "body": None,
            "paging": gone.paging or self.paging,
            "record": RecordPaths(
                list=filled_text(gone.list, self._words), id=gone.id, sparse=gone.sparse, only=gone.only
            ),
            "parent": None,
        }
        return self.model_copy(update=instead)

    def params_at(self, cursor: Cursor | None) -> dict[str, str | int]:
        """The parameters of the page at a cursor."""
        paged, values = self._page(cursor)
        own = {name: filled_text(value, values) for name, value in self.params.items()}
        return {**own, **(paged if self.body is None else {})}

    def body_at(self, cursor: Cursor | None) -> JsonObject | None:
        """What is sent to get the page at a cursor."""
        paged, values = self._page(cursor)
        return None if self.body is None else placed(filled(self.body, values), paged)

    def _page(self, cursor: Cursor | None) -> tuple[dict[str, str | int], Values]:
        """What paging adds: parameters of its own, and what its placeholders stand for."""
        params = self.paging.ask(cursor).params
        holders = {name for name in params if name.startswith("{")}
        values = {name: params[name] for name in holders}
        return {name: params[name] for name in params.keys() - holders}, {**self._words, **values}

    @property
    def _words(self) -> Values:
        return {f"{{{name}}}": word for name, word in self.words.items()}


class Others(Part):
    """Collections that no file can list, such as the objects that an account has defined for itself."""

    pattern: str
    """What their names look like."""
    collection: Collection
    """Any of them; `{name}` in its path or its words stands for its name."""

    def named(self, name: str) -> Collection | None:
        """The collection of that name, if one may be called so."""
        if re.fullmatch(self.pattern, name, re.ASCII) is None:
            return None
        words = {
            key: word.replace(NAME, name) if isinstance(word, str) else word
            for key, word in self.collection.words.items()
        }
        path = self.collection.path.replace(NAME, name)
        return self.collection.model_copy(update={"path": path, "words": words})
