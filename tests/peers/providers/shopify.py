"""Shopify as its reference tells.

Paging: https://shopify.dev/docs/api/admin-rest/usage/pagination
Limits: https://shopify.dev/docs/api/admin-rest/usage/rate-limits
Access: https://shopify.dev/docs/api/admin-rest#authentication
"""

from dataclasses import dataclass, field

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, dated, limit, query

API = "/admin/api/2025-07"
INVALID = {"errors": "invalid parameter"}
FILTERS = ("limit", "status", "since_id", "ids", "updated_at_min", "created_at_min", "fields", "order")


@dataclass
class Shopify(Fake):
    """One shop; `page_info` goes with `limit` and `fields` only, and a bucket of calls leaks as told."""

    host: str = "choam.myshopify.com"
    token: str = "shpat_1"
    objects: Objects = field(default_factory=dict)
    calls: int = 0
    bucket: int = 40

    def fill(self, path: str, count: int, first: int = 1) -> None:
        self.objects[path] = [
            {"id": first + number, "created_at": dated(number), "updated_at": dated(number)}
            for number in range(count)
        ]

    def leak(self) -> None:
        self.calls = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("x-shopify-access-token") != self.token:
            raise RefusedError(401, {"errors": "[API] Invalid API key or access token"})
        if self.calls >= self.bucket:
            raise RefusedError(429, {"errors": "Exceeded 2 calls per second"}, {"Retry-After": "2.0"})
        self.calls += 1
        path = request.url.path.removeprefix(API).removesuffix(".json")
        if path == "/shop":
            return httpx.Response(200, json={"shop": {"id": 548380009}})
        if not request.url.path.startswith(API) or path not in self.objects:
            raise RefusedError(404, {"errors": "Not Found"})
        return self._page(request, path)

    def _page(self, request: httpx.Request, path: str) -> httpx.Response:
        if "page_info" in request.url.params:
            asked = query(request, ("page_info", "limit", "fields"), INVALID)
        else:
            asked = query(request, FILTERS, INVALID)
        size = limit(asked.get("limit"), 50, 250, INVALID)
        start = self._start(asked.get("page_info"), path)
        found = self.objects[path]
        headers = {"X-Shopify-Shop-Api-Call-Limit": f"{self.calls}/{self.bucket}"}
        if start + size < len(found):
            url = f"https://{self.host}{request.url.path}?page_info={path[1:]}:{start + size}&limit={size}"
            headers["Link"] = f'<{url}>; rel="next"'
        name = path.rsplit("/", 1)[1]
        return httpx.Response(200, json={name: found[start : start + size]}, headers=headers)

    def _start(self, page_info: str | None, path: str) -> int:
        if page_info is None:
            return 0
        name, _, start = page_info.rpartition(":")
        if name != path[1:]:
            raise RefusedError(400, {"errors": {"page_info": "Invalid value."}})
        return int(start)
