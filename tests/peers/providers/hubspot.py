"""HubSpot as its reference tells.

Lists: https://developers.hubspot.com/docs/api-reference/crm-contacts-v3/basic/get-crm-v3-objects-contacts
Owners: https://developers.hubspot.com/docs/api-reference/crm-crm-owners-v3/guide
Tokens: https://developers.hubspot.com/docs/api-reference/auth-oauth-v1/guide
"""

from dataclasses import dataclass, field

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, dated, form, limit, query

INVALID = {"status": "error", "category": "VALIDATION_ERROR", "message": "invalid parameter"}
MOST = {"/crm/v3/owners": 500}
WHOLE = "/crm/v3/pipelines/deals"


@dataclass
class HubSpot(Fake):
    """One account; access tokens come of a refresh token and end when `expire` says so."""

    host: str = "api.hubapi.com"
    objects: Objects = field(default_factory=dict)
    client: tuple[str, str] = ("client-1", "client-secret-1")
    refresh_token: str = "refresh-1"
    access_tokens: list[str] = field(default_factory=list)
    issued: int = 0

    def fill(self, path: str, count: int) -> None:
        self.objects[path] = [
            {
                "id": str(1000 + number),
                "properties": {"hs_object_id": str(1000 + number)},
                "createdAt": dated(number),
                "updatedAt": dated(number),
                "archived": False,
            }
            for number in range(count)
        ]

    def expire(self) -> None:
        self.access_tokens.clear()

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/v1/token":
            return self._issue(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.access_tokens:
            raise RefusedError(401, {"status": "error", "category": "EXPIRED_AUTHENTICATION"})
        if request.method != "GET" or request.url.path not in self.objects:
            raise RefusedError(404, {"status": "error"})
        return self._page(request, self.objects[request.url.path])

    def _page(self, request: httpx.Request, found: list[dict[str, object]]) -> httpx.Response:
        if request.url.path == WHOLE:
            query(request, (), INVALID)
            return httpx.Response(200, json={"results": found})
        asked = query(request, ("limit", "after", "properties", "archived"), INVALID)
        size = limit(asked.get("limit"), 10, MOST.get(request.url.path, 100), INVALID)
        after = asked.get("after", "0")
        if not after.isdecimal() or int(after) > len(found):
            raise RefusedError(400, INVALID)
        end = int(after) + size
        body: dict[str, object] = {"results": found[int(after) : end]}
        if end < len(found):
            body["paging"] = {"next": {"after": str(end), "link": f"https://{self.host}?after={end}"}}
        return httpx.Response(200, json=body)

    def _issue(self, request: httpx.Request) -> httpx.Response:
        asked = form(request)
        if (asked.get("client_id"), asked.get("client_secret")) != self.client:
            raise RefusedError(401, {"status": "BAD_CLIENT_ID", "error": "invalid_client"})
        if asked.get("grant_type") != "refresh_token" or asked.get("refresh_token") != self.refresh_token:
            raise RefusedError(
                400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"}
            )
        self.issued += 1
        self.access_tokens.append(f"access-{self.issued}")
        body = {"access_token": self.access_tokens[-1], "expires_in": 1800, "token_type": "bearer"}
        return httpx.Response(200, json=body | {"refresh_token": self.refresh_token})
