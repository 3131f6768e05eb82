"""SendGrid as its reference and its OpenAPI files tell (https://github.com/twilio/sendgrid-oai).

Limits: https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits
"""

import time
from dataclasses import dataclass, field

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, limit, query

MARKETING = {"/marketing/lists": 1000, "/marketing/singlesends": 100, "/templates": 200, "/designs": 100}
"""By tokens, and the largest page."""
SUPPRESSIONS = ("bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes")


def refusal(message: str) -> dict[str, object]:
    return {"errors": [{"field": None, "message": message}]}


@dataclass
class SendGrid(Fake):
    """One account; `left` is how many requests its limit still allows."""

    host: str = "api.sendgrid.com"
    key: str = "SG.key-1"
    objects: Objects = field(default_factory=dict)
    left: int = 1000
    at_once: int = 1000

    def suppress(self, kind: str, *addresses: str, created: int = 1_700_000_000) -> None:
        some = [{"created": created, "email": each} for each in addresses]
        self.objects.setdefault(f"/suppression/{kind}", []).extend(some)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            raise RefusedError(401, refusal("authorization required"))
        counted = {"x-ratelimit-limit": "1000", "x-ratelimit-reset": str(int(time.time()) + 40)}
        if self.left == 0:
            raise RefusedError(429, refusal("too many requests"), counted | {"x-ratelimit-remaining": "0"})
        self.left -= 1
        path = request.url.path.removeprefix("/v3")
        answer = httpx.Response(200, json=self._answer(request, path))
        answer.headers.update(counted | {"x-ratelimit-remaining": str(self.left)})
        return answer

    def _answer(self, request: httpx.Request, path: str) -> object:
        if path == "/user/username":
            return {"username": "choam", "user_id": 7}
        if path not in self.objects or request.method != "GET":
            raise RefusedError(404, refusal("not found"))
        found = self.objects[path]
        if path in MARKETING:
            return self._by_token(request, path)
        if path.startswith("/suppression/"):
            asked = query(
                request, ("start_time", "end_time", "limit", "offset", "email"), refusal("parameter")
            )
            since = int(asked.get("start_time", "0"))
            return self._by_offset(asked, [each for each in found if each["created"] >= since])
        if path == "/teammates":
            asked = query(request, ("limit", "offset"), refusal("parameter"))
            return {"result": self._by_offset(asked, found)}
        query(request, (), refusal("parameter"))
        return found if path == "/asm/groups" else {"custom_fields": found} if found else {}

    def _by_offset(self, asked: dict[str, str], found: list[dict[str, object]]) -> list[dict[str, object]]:
        start = int(asked.get("offset", "0"))
        return found[start : start + limit(asked.get("limit"), 500, 500, refusal("limit"))]

    def _by_token(self, request: httpx.Request, path: str) -> dict[str, object]:
        allowed = ("page_size", "page_token", *(["generations"] if path == "/templates" else []))
        asked = query(request, allowed, refusal("parameter"))
        if path == "/templates" and "page_size" not in asked:
            raise RefusedError(400, refusal("page_size is required"))
        size = limit(asked.get("page_size"), 100, MARKETING[path], refusal("page_size"))
        name, _, start = asked.get("page_token", f"{path}:0").rpartition(":")
        if name != path:
            raise RefusedError(400, refusal("invalid page token"))
        end = int(start) + min(size, self.at_once)
        around = {"self": str(request.url), "count": len(self.objects[path])}
        if end < len(self.objects[path]):
            around["next"] = str(request.url.copy_set_param("page_token", f"{path}:{end}"))
        return {"result": self.objects[path][int(start) : end], "_metadata": around}
