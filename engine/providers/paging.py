"""How providers page: a closed set of kinds, each two pure functions over a small JSON cursor."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from engine.tables.base import JsonMapping, JsonObject

Cursor: TypeAlias = JsonObject


class LastId(BaseModel):
    """The next page starts after the last id of this one (Stripe)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["last_id"]
    cursor_param: str
    limit_param: str
    page_size: int
    more: str

    def params(self, cursor: Cursor | None) -> Mapping[str, str]:
        """The query parameters of the page at a cursor; none is the first page."""
        limit = {self.limit_param: str(self.page_size)}
        return limit | {self.cursor_param: str(cursor["after"])} if cursor else limit

    def following(self, payload: JsonMapping, ids: Sequence[str]) -> Cursor | None:
        """The cursor of the next page, or nothing when this page was the last."""
        return {"after": ids[-1]} if ids and payload.get(self.more) is True else None


Paging: TypeAlias = LastId
"""The kinds there are; the next one joins here as a union discriminated by `kind`."""
