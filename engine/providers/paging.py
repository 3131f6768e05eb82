"""How providers page: a closed set of kinds, each two pure functions over a small JSON cursor.

`ask` says what to request at a cursor, where no cursor means the first page; `following` reads the next
cursor from an answer, where none means that it was the last. The names of parameters are dotted paths where
a collection is asked for with a body; those in braces are placeholders in the collection's own parameters
or body instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from engine.providers.answer import Answer, UnreadableAnswerError
from engine.providers.part import Part
from engine.providers.paths import dig
from engine.providers.urls import path_of_link
from engine.tables.base import JsonObject

Cursor: TypeAlias = JsonObject


@dataclass(frozen=True, slots=True)
class Ask:
    """What a page adds to a collection's request: parameters, or a whole path in place of its own."""

    params: Mapping[str, str | int] = field(default_factory=dict)
    path: str | None = None


class Kind(Part):
    """What all kinds have in common."""

    @property
    def shifts(self) -> bool:
        """Whether a record may be on none of the pages, as one before it was deleted while they were read."""
        return False


class Single(Kind):
    """Everything comes in one answer."""

    kind: Literal["single"]

    def ask(self, _cursor: Cursor | None) -> Ask:
        return Ask()

    def following(self, _answer: Answer, _ids: Sequence[str], _cursor: Cursor | None) -> Cursor | None:
        return None


class Limited(Kind):
    """A kind of paging whose pages have a size."""

    limit_param: str | None = None
    """Without it, the provider sets the size."""
    page_size: int = Field(ge=1)

    @property
    def limit(self) -> Mapping[str, str | int]:
        return {} if self.limit_param is None else {self.limit_param: self.page_size}


class LastId(Limited):
    """The next page starts after the last id of this one (Stripe, or any list ordered by id)."""

    kind: Literal["last_id"]
    cursor_param: str
    first: str | None = None
    """What stands before all ids, where the first page has to name one too."""
    more: str | None = None
    """What tells of a next page, by `true` or anything else; where there is nothing, a full page does."""

    def ask(self, cursor: Cursor | None) -> Ask:
        after = str(cursor["after"]) if cursor else self.first
        return Ask({**self.limit, **({} if after is None else {self.cursor_param: after})})

    def following(self, answer: Answer, ids: Sequence[str], _cursor: Cursor | None) -> Cursor | None:
        told = dig(answer.payload, self.more) if self.more else None
        has_more = len(ids) >= self.page_size if told is None else bool(told)
        return {"after": ids[-1]} if ids and has_more else None


class BodyToken(Limited):
    """The answer's body holds a token for the next page (HubSpot, Airtable, GraphQL's connections)."""

    kind: Literal["body_token"]
    cursor_param: str
    token: str
    more: str | None = None
    """What holds something while there is a next page, where the last one has a token too."""

    def ask(self, cursor: Cursor | None) -> Ask:
        return Ask({**self.limit, **({self.cursor_param: str(cursor["token"])} if cursor else {})})

    def following(self, answer: Answer, _ids: Sequence[str], _cursor: Cursor | None) -> Cursor | None:
        token = dig(answer.payload, self.token)
        if self.more is not None and not dig(answer.payload, self.more):
            return None
        return {"token": str(token)} if isinstance(token, str | int) and token != "" else None


class LinkHeader(Limited):
    """The `Link` header names the next page (GitHub, Shopify)."""

    kind: Literal["link_header"]
    numbered: bool = False
    """What it names is a number."""

    @property
    def shifts(self) -> bool:
        return self.numbered

    def ask(self, cursor: Cursor | None) -> Ask:
        return Ask(path=str(cursor["path"])) if cursor else Ask(self.limit)

    def following(self, answer: Answer, _ids: Sequence[str], _cursor: Cursor | None) -> Cursor | None:
        return {"path": path_of_link(answer.url, answer.next_link)} if answer.next_link else None


class NextUrl(Kind):
    """The answer's body holds the URL of the next page (Salesforce); the provider sets the page's size."""

    kind: Literal["next_url"]
    url: str

    def ask(self, cursor: Cursor | None) -> Ask:
        return Ask(path=str(cursor["path"])) if cursor else Ask()

    def following(self, answer: Answer, _ids: Sequence[str], _cursor: Cursor | None) -> Cursor | None:
        url = dig(answer.payload, self.url)
        return {"path": path_of_link(answer.url, url)} if isinstance(url, str) and url else None


class PageNumber(Limited):
    """Pages are numbered; one that is not full is the last."""

    kind: Literal["page"]
    page_param: str
    first: int = 1

    @property
    def shifts(self) -> bool:
        return True

    def ask(self, cursor: Cursor | None) -> Ask:
        return Ask({**self.limit, self.page_param: _number(cursor, "page", self.first)})

    def following(self, _answer: Answer, ids: Sequence[str], cursor: Cursor | None) -> Cursor | None:
        return {"page": _number(cursor, "page", self.first) + 1} if len(ids) >= self.page_size else None


class Offset(Limited):
    """Pages start at a number of records; one that is not full is the last."""

    kind: Literal["offset"]
    offset_param: str
    first: int = 0

    @property
    def shifts(self) -> bool:
        return True

    def ask(self, cursor: Cursor | None) -> Ask:
        return Ask({**self.limit, self.offset_param: _number(cursor, "offset", self.first)})

    def following(self, _answer: Answer, ids: Sequence[str], cursor: Cursor | None) -> Cursor | None:
        start = _number(cursor, "offset", self.first)
        return {"offset": start + len(ids)} if len(ids) >= self.page_size else None


class Keyset(Limited):
    """The next page starts at what the last record has in the field that the list is sorted by.

    Nothing that is deleted on the way moves a record out of sight, and no page is too far down. Records that
    share a value come twice; where they fill whole pages, `skip_param` leads on among them.
    """

    kind: Literal["keyset"]
    cursor_param: str
    key: str
    """Where a record holds that value."""
    first: str
    """What no value is before; of a list of changes, `{since}`."""
    skip_param: str
    skip_first: int = 0
    skips: Literal["records", "pages"] = "records"

    def ask(self, cursor: Cursor | None) -> Ask:
        after = str(cursor["after"]) if cursor else self.first
        skip = _number(cursor, "skip", 0) * (self.page_size if self.skips == "records" else 1)
        return Ask({**self.limit, self.cursor_param: after, self.skip_param: self.skip_first + skip})

    def following(self, answer: Answer, ids: Sequence[str], cursor: Cursor | None) -> Cursor | None:
        if len(ids) < self.page_size:
            return None
        last = dig(answer.last, self.key)
        if not isinstance(last, str | int):
            raise UnreadableAnswerError(f"sent a record without {self.key}")
        is_same = cursor is not None and cursor["after"] == str(last)
        return {"after": str(last), "skip": _number(cursor, "skip", 0) + 1 if is_same else 0}


Paging: TypeAlias = Annotated[
    Single | LastId | BodyToken | LinkHeader | NextUrl | PageNumber | Offset | Keyset,
    Field(discriminator="kind"),
]


def _number(cursor: Cursor | None, name: str, first: int) -> int:
    value = cursor.get(name) if cursor else None
    return value if isinstance(value, int) else first
