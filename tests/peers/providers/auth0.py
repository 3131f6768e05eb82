"""Auth0's Management API as its reference tells.

Paging: https://auth0.com/docs/api/management/v2 and
https://auth0.com/docs/manage-users/user-search/view-search-results-by-page
Logs: https://auth0.com/docs/deploy-monitor/logs/retrieve-log-events-using-mgmt-api
"""

import re
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, limit, query
from tests.peers.providers.tokens import Tokens

API = "/api/v2"
CHECKPOINTS = {"clients": "client_id", "connections": "id", "organizations": "id", "client-grants": "id"}
PAGED = {"roles": "roles", "actions/actions": "actions"}
RANGE = re.compile(r"(?P<field>created_at|updated_at|date):\[(?P<since>[^ \]]+) TO \*\]")


def refusal(status: int, message: str) -> dict[str, object]:
    return {"statusCode": status, "error": "no", "message": message}


INVALID = refusal(400, "Query validation error")


@dataclass
class Auth0(Fake):
    """One tenant; `objects` are by the path below the API."""

    host: str = "choam.eu.auth0.com"
    tokens: Tokens = field(
        default_factory=lambda: Tokens(
            refresh_token=None, params={"audience": "https://choam.eu.auth0.com/api/v2/"}, lasts_s=86400
        )
    )
    objects: Objects = field(default_factory=dict)
    left: int = 1000
    shown: int = 1000
    """How many results of a search can be paged through."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return self.tokens.issue(request)
        self.tokens.check(request, 401, refusal(401, "Invalid token"))
        counted = {"x-ratelimit-limit": "10", "x-ratelimit-reset": str(int(time.time()) + 15)}
        if self.left == 0:
            raise RefusedError(
                429, refusal(429, "Too many requests"), counted | {"x-ratelimit-remaining": "0"}
            )
        self.left -= 1
        name = request.url.path.removeprefix(f"{API}/")
        if request.method != "GET" or name not in self.objects:
            raise RefusedError(404, refusal(404, "Not found"))
        body = self._answer(request, name, self.objects[name])
        return httpx.Response(200, json=body, headers=counted | {"x-ratelimit-remaining": str(self.left)})

    def _answer(self, request: httpx.Request, name: str, found: list[dict[str, Any]]) -> object:
        if name in {"users", "logs"}:
            return self._search(request, found, 100 if name == "logs" else 50)
        if name in PAGED:
            asked = query(request, ("page", "per_page", "include_totals"), INVALID)
            some = self._page(asked, found, 50)
            if name == "roles" and asked.get("include_totals") != "true":
                return some
            return {"total": len(found), PAGED[name]: some}
        asked = query(request, ("from", "take", "fields", "include_fields"), INVALID)
        hidden = asked.get("fields", "").split(",") if asked.get("include_fields") == "false" else []
        end = int(asked.get("from", "at0")[2:]) + limit(asked.get("take"), 25, 50, INVALID)
        some = found[int(asked.get("from", "at0")[2:]) : end]
        shown = [{key: value for key, value in each.items() if key not in hidden} for each in some]
        more = {"next": f"at{end}"} if end < len(found) else {}
        return {name.rpartition("/")[2].replace("-", "_"): shown} | more

    def _search(self, request: httpx.Request, found: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        asked = query(request, ("q", "sort", "page", "per_page", "search_engine"), INVALID)
        read = RANGE.fullmatch(asked.get("q", ""))
        if read is None or asked.get("sort") != f"{read['field']}:1":
            raise RefusedError(400, INVALID)
        hits = sorted(
            (each for each in found if each[read["field"]] >= read["since"]),
            key=lambda each: str(each[read["field"]]),
        )
        return self._page(asked, hits, most)

    def _page(self, asked: dict[str, str], found: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        size, page = limit(asked.get("per_page"), 50, most, INVALID), int(asked.get("page", "0"))
        if (page + 1) * size > self.shown:
            raise RefusedError(400, refusal(400, "You can only page through the first 1000 records."))
        return found[page * size : (page + 1) * size]
