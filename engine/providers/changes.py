"""How a provider tells what has changed: the `changes` section of its file, and what it makes of a moment."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from pydantic import Field

from engine.providers.paging import Keyset, Paging
from engine.providers.part import Part
from engine.providers.template import filled, filled_text
from engine.tables.base import JsonObject

SINCE: Final = "{since}"
OWN_PATH: Final = "{path}"
Spelling: TypeAlias = Literal["unix", "unix_ms", "iso", "sql", "date"]
"""How `{since}` is written: seconds or milliseconds since 1970, `2026-01-31T23:59:59Z`,
`2026-01-31 23:59:59`, `2026-01-31`."""


class Watch(Part):
    """What both kinds share: a list that a moment narrows, read with some overlap."""

    params: Mapping[str, str] = Field(default_factory=dict)
    """Query parameters beside those of the list; `{since}` stands for the moment."""
    spelling: Spelling = "iso"
    overlap_s: float = Field(default=10.0, ge=0)
    """How far each look reaches back before the newest change seen: equal or late times lose nothing."""

    def params_since(self, moment: datetime) -> dict[str, str]:
        values = self.values(moment)
        return {name: filled_text(value, values) for name, value in self.params.items()}

    def values(self, moment: datetime) -> dict[str, str]:
        """What `{since}` becomes."""
        return {SINCE: spell(self.back_to(moment), self.spelling)}

    def back_to(self, moment: datetime) -> datetime:
        """Where a look begins that comes after one up to a moment."""
        return moment - timedelta(seconds=self.overlap_s)


class Gone(Watch):
    """A list that names what was deleted, or put away."""

    path: str
    """`{path}` stands for the collection's own."""
    list: str
    sparse: bool = False
    """An empty list is left out of the answer."""
    id: str = "id"
    """Where an entry holds the id of what is gone."""
    only: Mapping[str, str] = Field(default_factory=dict)
    """What an entry has that is about something gone, where others are listed too."""
    paging: Paging | None = None
    """If it is not the collection's own."""
    every_s: float = Field(default=0.0, ge=0)
    """How long it is left alone between two looks, if not as long as the changes."""


class UpdatedSince(Watch):
    """A list of what was created or updated since a moment; a flag or a list beside it tells of deletes."""

    kind: Literal["updated_since"]
    path: str | None = None
    """Where that list is, if it is not the collection's own; `{path}` stands for that. It takes none of the
    collection's own parameters along."""
    body: JsonObject | None = None
    """Sent by POST; `{since}` in any of its strings stands for the moment."""
    paging: Paging | None = None
    """If it is not the collection's own."""
    gone: Gone | None = None
    newest_first: bool = False
    """The list is not narrowed but ordered: it is read up to what was updated before the moment."""

    def path_for(self, own: str) -> str:
        return own if self.path is None else self.path.replace(OWN_PATH, own)

    def paging_since(self, own: Paging, moment: datetime) -> Paging:
        paging = self.paging or own
        if not isinstance(paging, Keyset):
            return paging
        return paging.model_copy(update={"first": filled_text(paging.first, self.values(moment))})

    def body_since(self, moment: datetime) -> JsonObject | None:
        return None if self.body is None else filled(self.body, self.values(moment))


class EventFeed(Watch):
    """One list of events that tells of the changes, and deletes, of many collections."""

    kind: Literal["event_feed"]
    path: str
    paging: Paging
    retention_days: float = Field(gt=0)
    """Who has not looked for longer has to read everything again."""
    list: str
    id: str
    created: str
    type: str
    object: str
    """Where an event holds the object it is about, as it was then."""
    collection: str
    """Where that object names its collection."""
    deleted_types: frozenset[str] = frozenset()
    """Events after which the object is gone."""
    object_path: str = "{path}/{id}"
    """Where one object can be read, from its collection's path and its id."""
    own_collection: str | None = None
    """The collection that the events themselves are the records of."""


def spell(moment: datetime, spelling: Spelling) -> str:
    """A moment as the provider reads it; never later than it is."""
    match spelling:
        case "unix":
            return str(int(moment.timestamp()))
        case "unix_ms":
            return str(int(moment.timestamp() * 1_000))
        case "iso":
            return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "sql":
            return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case "date":
            return moment.astimezone(UTC).strftime("%Y-%m-%d")
