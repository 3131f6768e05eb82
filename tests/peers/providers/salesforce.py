"""Salesforce as its reference tells.

Queries: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/dome_query.htm
FIELDS(): https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_fields.htm
Tokens: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_refresh_token_flow.htm
Errors: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, form, query

API = "/services/data/v60.0"
SOQL = re.compile(r"SELECT FIELDS\((?P<fields>ALL|STANDARD|CUSTOM)\) FROM (?P<name>\w+)(?P<rest>.*)")


@dataclass
class Salesforce(Fake):
    """One org. It rotates refresh tokens when told to, and has as large batches as it likes."""

    host: str = "choam.my.salesforce.com"
    objects: Objects = field(default_factory=dict)
    client: tuple[str, str] = ("client-1", "client-secret-1")
    refresh_token: str = "refresh-0"
    rotates: bool = False
    access_tokens: list[str] = field(default_factory=list)
    issued: int = 0
    batch: int = 2000
    locators: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def fill(self, name: str, count: int) -> None:
        self.objects[name] = [
            {
                "attributes": {"type": name, "url": f"{API}/sobjects/{name}/{number:018}"},
                "Id": f"{number:018}",
                "CreatedDate": "2025-01-01T00:00:00.000+0000",
                "SystemModstamp": "2025-02-01T00:00:00.000+0000",
            }
            for number in range(count)
        ]

    def expire(self) -> None:
        self.access_tokens.clear()

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/services/oauth2/token":
            return self._issue(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme not in {"Bearer", "OAuth"} or token not in self.access_tokens:
            raise RefusedError(401, [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired"}])
        if request.url.path == f"{API}/query":
            asked = query(request, ("q",), [{"errorCode": "MALFORMED_QUERY"}])
            return self._batch(self._select(asked["q"]), 0)
        return self._more(request.url.path)

    def _select(self, soql: str) -> str:
        read = SOQL.fullmatch(soql)
        if read is None or (read["fields"] != "STANDARD" and "LIMIT 200" not in read["rest"]):
            raise RefusedError(400, [{"errorCode": "MALFORMED_QUERY"}])
        if read["name"] not in self.objects:
            raise RefusedError(400, [{"errorCode": "INVALID_TYPE"}])
        return read["name"]

    def _more(self, path: str) -> httpx.Response:
        locator, _, start = path.removeprefix(f"{API}/query/").rpartition("-")
        if locator not in self.locators:
            raise RefusedError(400, [{"errorCode": "INVALID_QUERY_LOCATOR"}])
        return self._batch(self.locators[locator][0]["attributes"]["type"], int(start))

    def _batch(self, name: str, start: int) -> httpx.Response:
        found, end = self.objects[name], start + self.batch
        body = {"totalSize": len(found), "done": end >= len(found), "records": found[start:end]}
        if end < len(found):
            self.locators[f"01g{name}"] = found
            body["nextRecordsUrl"] = f"{API}/query/01g{name}-{end}"
        return httpx.Response(200, json=body)

    def _issue(self, request: httpx.Request) -> httpx.Response:
        asked = form(request)
        if (asked.get("client_id"), asked.get("client_secret")) != self.client:
            raise RefusedError(
                400, {"error": "invalid_client", "error_description": "invalid client credentials"}
            )
        if asked.get("grant_type") != "refresh_token" or asked.get("refresh_token") != self.refresh_token:
            raise RefusedError(
                400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}
            )
        self.issued += 1
        self.access_tokens.append(f"access-{self.issued}")
        body = {
            "access_token": self.access_tokens[-1],
            "token_type": "Bearer",
            "instance_url": f"https://{self.host}",
        }
        if self.rotates:
            self.refresh_token = f"refresh-{self.issued}"
            body["refresh_token"] = self.refresh_token
        return httpx.Response(200, json=body)
