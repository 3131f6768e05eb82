"""Shopify as its reference tells.

Paging: https://shopify.dev/docs/api/admin-rest/usage/pagination
Limits: https://shopify.dev/docs/api/admin-rest/usage/rate-limits
Access: https://shopify.dev/docs/api/admin-rest#authentication
Tokens: https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/offline-access-tokens
Filters: https://shopify.dev/docs/api/admin-rest/2026-01/resources/product, /order, /event and so on
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, dated, form, limit, query

API: Final = "/admin/api/2026-04"
INVALID: Final = {"errors": "invalid parameter"}
TIMES: Final = ("created_at_min", "created_at_max", "updated_at_min", "updated_at_max")
PLAIN: Final = ("limit", "since_id", "fields")
FILTERS: Final = {
    "products": (
        *PLAIN,
        *TIMES,
        "ids",
        "status",
        "title",
        "vendor",
        "handle",
        "product_type",
        "collection_id",
    ),
    "orders": (*PLAIN, *TIMES, "ids", "status", "financial_status", "fulfillment_status"),
    "customers": (*PLAIN, *TIMES, "ids"),
    "price_rules": (*PLAIN, *TIMES, "times_used"),
    "discount_codes": ("limit",),
    "events": (*PLAIN, "created_at_min", "created_at_max", "filter", "verb"),
}


@dataclass
class Shopify(Fake):
    """One shop; `page_info` goes with `limit` and `fields` only, and a bucket of calls leaks as told."""

    host: str = "choam.myshopify.com"
    token: str = "shpat_1"
    objects: Objects = field(default_factory=lambda: {"/events": []})
    walks: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    client: tuple[str, str] = ("client-1", "client-secret-1")
    refresh_token: str = "shprt_1"
    calls: int = 0
    bucket: int = 40

    def fill(self, path: str, count: int, first: int = 1) -> None:
        for number in range(count):
            self.put(path, first + number, dated(number))

    def put(self, path: str, number: int, at: str, **values: Any) -> None:
        """Create or change an object at a time."""
        objects = self.objects.setdefault(path, [])
        before = next((each for each in objects if each["id"] == number), {"id": number, "created_at": at})
        changed = before | {"updated_at": at} | values
        self.objects[path] = [*(each for each in objects if each["id"] != number), changed]

    def destroy(self, path: str, number: int, at: str, subject: str) -> None:
        """Delete an object, of which an event tells."""
        self.objects[path] = [each for each in self.objects[path] if each["id"] != number]
        event = {"subject_id": number, "subject_type": subject, "verb": "destroy", "created_at": at}
        self.objects["/events"].append({"id": 5_000_000 + number, **event})

    def leak(self) -> None:
        self.calls = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/admin/oauth/access_token":
            return self._issue(request)
        if request.headers.get("x-shopify-access-token") != self.token:
            raise RefusedError(401, {"errors": "[API] Invalid API key or access token"})
        if self.calls >= self.bucket:
            raise RefusedError(429, {"errors": "Exceeded 2 calls per second"}, {"Retry-After": "2.0"})
        self.calls += 1
        path = request.url.path.removeprefix(API).removesuffix(".json")
        if path == "/shop":
            return httpx.Response(200, json={"shop": {"id": 548380009}})
        if request.method != "GET" or not request.url.path.startswith(API) or path not in self.objects:
            raise RefusedError(404, {"errors": "Not Found"})
        return self._page(request, path)

    def _page(self, request: httpx.Request, path: str) -> httpx.Response:
        """A walk keeps the filters of its first page, as they may not be said again."""
        name = path.rsplit("/", 1)[1]
        if "page_info" in request.url.params:
            asked = query(request, ("page_info", "limit", "fields"), INVALID)
            start, filters = self._goes_on(asked["page_info"], path)
        else:
            asked = query(request, FILTERS[name], INVALID)
            start, filters = 0, {key: value for key, value in asked.items() if key not in PLAIN}
        size = limit(asked.get("limit"), 50, 250, INVALID)
        found = [each for each in self.objects[path] if _fits(each, filters)]
        headers = {"X-Shopify-Shop-Api-Call-Limit": f"{self.calls}/{self.bucket}"}
        if start + size < len(found):
            page_info = f"{path[1:]}:{len(self.walks)}:{start + size}"
            self.walks[page_info] = (path, filters)
            url = f"https://{self.host}{request.url.path}?page_info={page_info}&limit={size}"
            headers["Link"] = f'<{url}>; rel="next"'
        return httpx.Response(200, json={name: found[start : start + size]}, headers=headers)

    def _issue(self, request: httpx.Request) -> httpx.Response:
        """Tokens of an hour; what was refreshed with is replaced."""
        asked = form(request)
        is_known = (asked.get("client_id"), asked.get("client_secret")) == self.client
        if not is_known or asked.get("grant_type") != "refresh_token":
            raise RefusedError(400, {"error": "invalid_client"})
        if asked.get("refresh_token") != self.refresh_token:
            raise RefusedError(400, {"error": "invalid_request"})
        self.token, self.refresh_token = f"{self.token}1", f"{self.refresh_token}1"
        issued = {"access_token": self.token, "expires_in": 3600, "scope": "read_products"}
        return httpx.Response(200, json=issued | {"refresh_token": self.refresh_token})

    def _goes_on(self, page_info: str, path: str) -> tuple[int, dict[str, str]]:
        walked, filters = self.walks.get(page_info, ("", {}))
        if walked != path:
            raise RefusedError(400, {"errors": {"page_info": "Invalid value."}})
        return int(page_info.rpartition(":")[2]), filters


def _fits(found: dict[str, Any], filters: dict[str, str]) -> bool:
    for name, value in filters.items():
        if name in TIMES:
            moment, bound = datetime.fromisoformat(found[name[:-4]]), _moment(value)
            is_in = moment >= bound if name.endswith("_min") else moment <= bound
        elif name == "filter":
            is_in = found["subject_type"] in value.split(",")
        else:
            is_in = name != "verb" or found["verb"] == value
        if not is_in:
            return False
    return True


def _moment(value: str) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise RefusedError(400, {"errors": {"updated_at_min": "invalid date"}}) from None
