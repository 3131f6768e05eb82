"""Marketo as its reference and its OpenAPI files tell (https://github.com/AdobeDocs/marketo-developer.en).

Errors: https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/error-codes
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, query
from tests.peers.providers.tokens import Tokens

DATED = ("programs", "smartCampaigns", "smartLists", "staticLists", "emails")
ASSETS = ("emailTemplates", "landingPages", "landingPageTemplates", "snippets", "channels")


def failed(code: str) -> RefusedError:
    """Nearly everything is answered 200."""
    return RefusedError(
        200, {"requestId": "1", "success": False, "errors": [{"code": code, "message": "no"}]}
    )


@dataclass
class Marketo(Fake):
    """One instance; `objects` are by what follows `/asset/v1/` or `/v1/`, without `.json`."""

    host: str = "123-abc-456.mktorest.com"
    tokens: Tokens = field(default_factory=lambda: Tokens(refresh_token=None))
    objects: Objects = field(default_factory=dict)
    trouble: str | None = None
    at_once: int = 300

    def fill(self, name: str, count: int, first: int = 1001) -> None:
        times = {"createdAt": "2025-01-01T00:00:00Z+0000", "updatedAt": "2025-01-02T00:00:00Z+0000"}
        self.objects[name] = [
            {"id": first + number, "name": f"n{number}", **times} for number in range(count)
        ]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/identity/oauth/token":
            return self.tokens.issue(request)
        try:
            self.tokens.check(request, 401, {})
        except RefusedError:
            raise failed("602") from None
        if self.trouble is not None:
            raise failed(self.trouble)
        place, _, name = request.url.path.removeprefix("/rest/").removesuffix(".json").partition("v1/")
        if not request.url.path.endswith(".json") or name not in self.objects:
            raise failed("610")
        found = self.objects[name]
        body = self._assets(request, name, found) if place == "asset/" else self._leads(request, name, found)
        return httpx.Response(200, json={"requestId": "1", "success": True} | body)

    def _assets(self, request: httpx.Request, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        if name not in (*DATED, *ASSETS):
            raise failed("610")
        filters = ("earliestUpdatedAt", "latestUpdatedAt") if name in DATED else ()
        asked = query(request, ("offset", "maxReturn", *filters), {})
        size, start = int(asked.get("maxReturn", "20")), int(asked.get("offset", "0"))
        if not 1 <= size <= 200:
            raise failed("701")
        if since := asked.get("earliestUpdatedAt"):
            found = [each for each in found if _moment(each["updatedAt"]) >= datetime.fromisoformat(since)]
        some = found[start : start + size]
        return {"result": some} if some else {"warnings": ["No assets found for the given search criteria."]}

    def _leads(self, request: httpx.Request, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        if name == "activities/types":
            query(request, (), {})
            return {"result": found}
        asked = query(request, ("batchSize", "nextPageToken"), {})
        size = int(asked.get("batchSize", "300"))
        of, _, start = asked.get("nextPageToken", f"{name}=0").rpartition("=")
        if not 1 <= size <= 300 or of != name:
            raise failed("701")
        end = int(start) + min(size, self.at_once)
        told: dict[str, Any] = {"result": found[int(start) : end]}
        if name.startswith("list/"):  # these have a token on the last page as well
            return told | {"nextPageToken": f"{name}={end}", "moreResult": end < len(found)}
        return told | ({"nextPageToken": f"{name}={end}"} if end < len(found) else {})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z+0000", "Z"))
