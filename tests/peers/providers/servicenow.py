"""ServiceNow's Table API as its reference tells.

Lists: https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html
Limits: https://www.servicenow.com/docs/r/api-reference/rest-api-explorer/inbound-REST-API-rate-limiting.html
"""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, query
from tests.peers.providers.tokens import Tokens, basic

LIST = (
    "sysparm_query",
    "sysparm_limit",
    "sysparm_offset",
    "sysparm_display_value",
    "sysparm_exclude_reference_link",
)
QUERY = re.compile(r"(sys_updated_on>=(?P<since>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\^)?ORDERBYsys_id")


def refusal(message: str) -> dict[str, object]:
    return {"error": {"message": message, "detail": ""}, "status": "failure"}


@dataclass
class ServiceNow(Fake):
    """One instance; what the user may not see is cut from pages after they have been made."""

    host: str = "choam.service-now.com"
    tokens: Tokens = field(default_factory=lambda: Tokens(lasts_s=1799))
    user: tuple[str, str] = ("integration", "integration-password")
    objects: Objects = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    is_busy: bool = False

    def fill(self, table: str, count: int) -> None:
        self.objects[table] = [
            {
                "sys_id": f"{number:032x}",
                "sys_created_on": "2025-01-01 00:00:00",
                "sys_updated_on": "2025-01-02 00:00:00",
            }
            for number in range(count)
        ]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth_token.do":
            return self.tokens.issue(request)
        if basic(request) != self.user:
            self.tokens.check(request, 401, refusal("User Not Authenticated"))
        if self.is_busy:
            raise RefusedError(429, refusal("Rate limit exceeded"), {"Retry-After": "1800"})
        table = request.url.path.removeprefix("/api/now/table/")
        if table not in self.objects:
            raise RefusedError(400, refusal("Invalid table"))
        return self._page(request, self.objects[table])

    def _page(self, request: httpx.Request, found: list[dict[str, Any]]) -> httpx.Response:
        asked = query(request, LIST, refusal("unknown parameter"))
        read = QUERY.fullmatch(asked.get("sysparm_query", ""))
        if read is None:  # the real one passes over what it does not understand, and lists everything
            raise RefusedError(400, refusal("invalid query"))
        hits = [each for each in found if each["sys_updated_on"] >= (read["since"] or "")]
        start, size = int(asked.get("sysparm_offset", "0")), int(asked.get("sysparm_limit", "10000"))
        some = sorted(hits, key=lambda each: str(each["sys_id"]))[start : start + size]
        headers = {"X-Total-Count": str(len(hits))}
        if start + size < len(hits):
            following = request.url.copy_set_param("sysparm_offset", str(start + size))
            headers["Link"] = f'<{request.url}>;rel="first",<{following}>;rel="next"'
        shown = [each for each in some if each["sys_id"] not in self.hidden]
        return httpx.Response(200, json={"result": shown}, headers=headers)
