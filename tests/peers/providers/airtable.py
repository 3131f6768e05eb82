"""Airtable as its reference tells.

Records: https://airtable.com/developers/web/api/list-records
Bases and tables: https://airtable.com/developers/web/api/list-bases and /get-base-schema
Tokens: https://airtable.com/developers/web/api/oauth-reference
"""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, RefusedError, limit, query
from tests.peers.providers.tokens import Tokens

FORMULA = re.compile(
    r"IS_AFTER\(IF\(LAST_MODIFIED_TIME\(\),LAST_MODIFIED_TIME\(\),CREATED_TIME\(\)\),'(?P<since>[^']+)'\)"
)
LIST = ("pageSize", "maxRecords", "offset", "view", "sort", "filterByFormula", "fields", "cellFormat")


def refusal(kind: str) -> dict[str, object]:
    return {"error": {"type": kind, "message": "no"}}


INVALID = refusal("INVALID_REQUEST_UNKNOWN")


@dataclass
class Airtable(Fake):
    """One user's bases; each table's records by id, with the time of their last modification, if any."""

    host: str = "api.airtable.com"
    token_host: str | None = "airtable.com"
    tokens: Tokens = field(
        default_factory=lambda: Tokens(
            rotates=True, in_header=True, pkce=True, says={"scope": "data.records:read schema.bases:read"}
        )
    )
    bases: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    modified: dict[str, str] = field(default_factory=dict)
    bases_at_once: int = 1000
    iterators: set[str] = field(default_factory=set)
    is_busy: bool = False

    def fill(self, base: str, table: str, count: int) -> None:
        self.bases.setdefault(base, {})[table] = [
            {"id": f"rec{number:014}", "createdTime": "2025-01-01T00:00:00.000Z", "fields": {"Name": number}}
            for number in range(count)
        ]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == self.token_host:
            if request.url.path != "/oauth2/v1/token":
                raise RefusedError(404, refusal("NOT_FOUND"))
            return self.tokens.issue(request)
        self.tokens.check(request, 401, refusal("AUTHENTICATION_REQUIRED"))
        if self.is_busy:
            raise RefusedError(429, {"errors": [{"error": "RATE_LIMIT_REACHED"}]})
        match request.url.path.strip("/").split("/"):
            case ["v0", "meta", "whoami"]:
                return httpx.Response(200, json={"id": "usrL2PNC5o3H4lBEi", "scopes": ["data.records:read"]})
            case ["v0", "meta", "bases"]:
                return self._list_bases(request)
            case ["v0", "meta", "bases", base, "tables"] if base in self.bases:
                query(request, ("include",), INVALID)
                tables = [{"id": each, "name": each, "fields": []} for each in self.bases[base]]
                return httpx.Response(200, json={"tables": tables})
            case ["v0", base, table] if table in self.bases.get(base, {}):
                return self._list_records(request, f"{base}/{table}", self.bases[base][table])
        raise RefusedError(403, refusal("INVALID_PERMISSIONS_OR_MODEL_NOT_FOUND"))

    def _list_bases(self, request: httpx.Request) -> httpx.Response:
        start = int(query(request, ("offset",), INVALID).get("offset", "itr0")[3:])
        found = [{"id": each, "name": each, "permissionLevel": "read"} for each in self.bases]
        end = start + self.bases_at_once
        more = {"offset": f"itr{end}"} if end < len(found) else {}
        return httpx.Response(200, json={"bases": found[start:end]} | more)

    def _list_records(self, request: httpx.Request, name: str, found: list[dict[str, Any]]) -> httpx.Response:
        asked = query(request, LIST, INVALID)
        size = limit(asked.get("pageSize"), 100, 100, INVALID)
        if formula := asked.get("filterByFormula"):
            read = FORMULA.fullmatch(formula)
            if read is None:
                raise RefusedError(422, refusal("INVALID_FILTER_BY_FORMULA"))
            found = [each for each in found if self._touched(each) > read["since"]]
        offset = asked.get("offset", f"{name}:0")
        if "offset" in asked and offset not in self.iterators:
            raise RefusedError(422, refusal("LIST_RECORDS_ITERATOR_NOT_AVAILABLE"))
        end = int(offset.rpartition(":")[2]) + size
        page: dict[str, object] = {"records": found[end - size : end]}
        if end < len(found):
            page["offset"] = f"{name}:{end}"
            self.iterators.add(f"{name}:{end}")
        return httpx.Response(200, json=page)

    def _touched(self, record: dict[str, Any]) -> str:
        return self.modified.get(record["id"]) or str(record["createdTime"])
