"""HubSpot as its reference tells.

Lists: https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/contacts/get-contacts
Searches: https://developers.hubspot.com/docs/api-reference/2026-03/crm/search-the-crm
Owners: https://developers.hubspot.com/docs/api-reference/2026-03/crm/owners/get-owners
Tokens: https://developers.hubspot.com/docs/api-reference/2026-03/authentication/oauth-tokens/refresh-oauth-token
"""

from dataclasses import dataclass, field
from datetime import datetime
from operator import ge, gt
from typing import Any, Final

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, body, dated, form, limit, query

INVALID: Final = {"status": "error", "category": "VALIDATION_ERROR", "message": "invalid parameter"}
OBJECTS: Final = "/crm/objects/2026-03/"
WHOLE: Final = "/crm/pipelines/2026-03/deals"
MOST: Final = {"/crm/owners/2026-03": 500}
LONGEST_URL: Final = 8_000
ASKED: Final = {"filterGroups", "sorts", "properties", "limit", "after", "query"}
FOUND: Final = 10_000
COMPARED: Final = {"GTE": ge, "GT": gt}


@dataclass
class HubSpot(Fake):
    """One account; access tokens come of a refresh token and end when `expire` says so."""

    host: str = "api.hubapi.com"
    objects: Objects = field(default_factory=dict)
    client: tuple[str, str] = ("client-1", "client-secret-1")
    refresh_token: str = "refresh-1"
    access_tokens: list[str] = field(default_factory=list)
    issued: int = 0
    most_found: int = FOUND

    def fill(self, path: str, count: int) -> None:
        for number in range(count):
            self.put(path, 1000 + number, dated(number))

    def put(self, path: str, number: int, at: str, **properties: str) -> None:
        """Create or change an object at a time."""
        others = [each for each in self.objects.get(path, []) if each["id"] != str(number)]
        changed = {
            "id": str(number),
            "properties": {"hs_object_id": str(number), _modified(path): at} | properties,
            "createdAt": dated(0),
            "updatedAt": at,
            "archived": False,
        }
        self.objects[path] = sorted([*others, changed], key=lambda each: int(each["id"]))

    def archive(self, path: str, number: int, at: str) -> None:
        """Neither `updatedAt` nor any search tells of it."""
        (found,) = (each for each in self.objects[path] if each["id"] == str(number))
        found |= {"archived": True, "archivedAt": at}

    def expire(self) -> None:
        self.access_tokens.clear()

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/2026-03/token":
            return self._issue(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.access_tokens:
            raise RefusedError(401, {"status": "error", "category": "EXPIRED_AUTHENTICATION"})
        if len(str(request.url)) > LONGEST_URL:
            raise RefusedError(414, {"status": "error"})
        path = request.url.path.removesuffix("/search")
        if path not in self.objects or request.method != ("POST" if path != request.url.path else "GET"):
            raise RefusedError(404, {"status": "error"})
        return self._page(request, path) if path == request.url.path else self._search(request, path)

    def _page(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == WHOLE:
            query(request, (), INVALID)
            return httpx.Response(200, json={"results": self.objects[path]})
        allowed = ("limit", "after", "properties", "archived")
        asked = query(
            request, allowed if path.startswith(OBJECTS) else ("limit", "after", "archived"), INVALID
        )
        size = limit(asked.get("limit"), 10, MOST.get(path, 100), INVALID)
        is_archived = asked.get("archived", "false") == "true"
        found = [each for each in self.objects[path] if each["archived"] is is_archived]
        shown = [_shown(each, asked.get("properties", "").split(",")) for each in found]
        return httpx.Response(200, json=_paged(shown, asked.get("after", "0"), size))

    def _search(self, request: httpx.Request, path: str) -> httpx.Response:
        """What is found, without what is archived; a page that would end beyond the limit is refused."""
        query(request, (), INVALID)
        asked = body(request)
        if not path.startswith(OBJECTS) or not set(asked) <= ASKED:
            raise RefusedError(400, INVALID)
        size = limit(str(asked.get("limit", 10)), 10, 200, INVALID)
        groups = asked.get("filterGroups", [])
        alive = [each for each in self.objects[path] if not each["archived"]]
        found = [each for each in alive if not groups or any(_fits(each, group) for group in groups)]
        for sort in asked.get("sorts", [])[:1]:
            is_falling = sort["direction"] == "DESCENDING"
            found.sort(key=lambda each: _value(each, sort["propertyName"]), reverse=is_falling)
        after = str(asked.get("after", "0"))
        if after.isdecimal() and int(after) + size > self.most_found:
            raise RefusedError(400, INVALID | {"message": "paging beyond the first 10,000 results"})
        shown = [_shown(each, asked.get("properties", [])) for each in found]
        return httpx.Response(200, json=_paged(shown, after, size) | {"total": len(found)})

    def _issue(self, request: httpx.Request) -> httpx.Response:
        query(request, (), INVALID)
        asked = form(request)
        if (asked.get("client_id"), asked.get("client_secret")) != self.client:
            raise RefusedError(401, {"status": "BAD_CLIENT_ID", "error": "invalid_client"})
        if asked.get("grant_type") != "refresh_token" or asked.get("refresh_token") != self.refresh_token:
            refusal = {"error": "invalid_grant", "error_description": "refresh token is invalid"}
            raise RefusedError(400, refusal | {"status": "BAD_REFRESH_TOKEN"})
        self.issued += 1
        self.access_tokens.append(f"access-{self.issued}")
        issued = {"access_token": self.access_tokens[-1], "expires_in": 1800, "token_type": "bearer"}
        return httpx.Response(200, json=issued | {"refresh_token": self.refresh_token, "hub_id": 62515})


def _modified(path: str) -> str:
    """Contacts call it differently."""
    return "lastmodifieddate" if path == f"{OBJECTS}contacts" else "hs_lastmodifieddate"


def _shown(found: dict[str, Any], properties: list[str]) -> dict[str, Any]:
    """Properties that were asked for and are not there are null; the id and the time are always told."""
    own = found["properties"]
    always = [name for name in own if name.endswith("lastmodifieddate") or name == "hs_object_id"]
    return found | {"properties": {name: own.get(name) for name in {*always, *properties} if name}}


def _paged(found: list[dict[str, Any]], after: str, size: int) -> dict[str, Any]:
    if not after.isdecimal() or int(after) > len(found):
        raise RefusedError(400, INVALID)
    end = int(after) + size
    more = {"paging": {"next": {"after": str(end), "link": f"https://api.hubapi.com/?after={end}"}}}
    return {"results": found[int(after) : end]} | (more if end < len(found) else {})


def _fits(found: dict[str, Any], group: dict[str, Any]) -> bool:
    filters = group["filters"]
    if not 0 < len(filters) <= 10 or set(group) != {"filters"}:
        raise RefusedError(400, INVALID)
    return all(_compares(found, each) for each in filters)


def _compares(found: dict[str, Any], one: dict[str, Any]) -> bool:
    if set(one) != {"propertyName", "operator", "value"} or not isinstance(one["value"], str):
        raise RefusedError(400, INVALID)
    if one["operator"] not in COMPARED or not one["value"].isdecimal():
        raise RefusedError(400, INVALID)
    return bool(COMPARED[one["operator"]](_value(found, one["propertyName"]), int(one["value"])))


def _value(found: dict[str, Any], name: str) -> int:
    """A number, or a time in milliseconds."""
    if name not in found["properties"]:
        raise RefusedError(400, INVALID | {"message": f"there is no property {name}"})
    value = found["properties"][name]
    return int(value) if value.isdecimal() else int(datetime.fromisoformat(value).timestamp() * 1000)
