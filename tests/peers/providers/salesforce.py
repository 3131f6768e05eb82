"""Salesforce as its reference tells.

Queries: https://developer.salesforce.com/docs/platform/api-rest/guide/resources-queryall.md
FIELDS(): https://developer.salesforce.com/docs/platform/salesforce-soql-sosl/guide/sforce-api-calls-soql-select-fields.md
Dates: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_dateformats.htm
Tokens: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_refresh_token_flow.htm
Errors: https://developer.salesforce.com/docs/platform/api-rest/guide/errorcodes.md
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, form, query

API = "/services/data/v60.0"
SOQL = re.compile(
    r"SELECT FIELDS\((?P<fields>ALL|STANDARD|CUSTOM)\) FROM (?P<name>\w+)"
    r"( WHERE (?P<where>.+?))?( ORDER BY (?P<order>\w+))?( LIMIT (?P<limit>\d+))?"
)
AFTER = re.compile(r"Id > '(\w{15}|\w{18})'")
SINCE = re.compile(r"SystemModstamp >= (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))")
LIMITED = 200
PREFIXES = {"Contact": "003", "Product2": "01t", "spice__c": "a00"}


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
    allowed: int = 100_000

    def fill(self, name: str, count: int) -> None:
        for number in range(count):
            self.put(name, number, "2025-02-01T00:00:00.000+0000")

    def put(self, name: str, number: int, at: str, **values: Any) -> None:
        """Create or change a record at a time."""
        record_id = self.id_of(name, number)
        record = {
            "attributes": {"type": name, "url": f"{API}/sobjects/{name}/{record_id}"},
            "Id": record_id,
            "CreatedDate": "2025-01-01T00:00:00.000+0000",
            "SystemModstamp": at,
            "IsDeleted": False,
            "Custom__c": None,
        }
        others = [each for each in self.objects.get(name, []) if each["Id"] != record_id]
        self.objects[name] = sorted([*others, record | values], key=lambda each: each["Id"])

    def id_of(self, name: str, number: int) -> str:
        return f"{PREFIXES[name]}{number:012}AAA"

    def expire(self) -> None:
        self.access_tokens.clear()

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/services/oauth2/token":
            return self._issue(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme not in {"Bearer", "OAuth"} or token not in self.access_tokens:
            raise RefusedError(401, [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired"}])
        if self.allowed == 0:
            raise RefusedError(403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED"}])
        self.allowed -= 1
        if request.method != "GET" or request.url.path not in {f"{API}/query", f"{API}/queryAll"}:
            raise RefusedError(404, [{"errorCode": "NOT_FOUND"}])
        asked = query(request, ("q",), [{"errorCode": "MALFORMED_QUERY"}])
        found = self._select(asked.get("q", ""), with_deleted=request.url.path.endswith("All"))
        body = {"totalSize": len(found), "done": len(found) <= self.batch, "records": found[: self.batch]}
        if len(found) > self.batch:
            body["nextRecordsUrl"] = f"{API}/query/01g000000000000AAA-{self.batch}"
        return httpx.Response(200, json=body)

    def _select(self, soql: str, *, with_deleted: bool) -> list[dict[str, Any]]:
        if (read := SOQL.fullmatch(soql)) is None or read["order"] not in {None, "Id"}:
            raise _malformed("unexpected token")
        limit = int(read["limit"] or 0)
        if read["fields"] != "STANDARD" and not 0 < limit <= LIMITED:
            raise _malformed("The SOQL FIELDS function must have a LIMIT of at most 200")
        if read["name"] not in self.objects:
            raise RefusedError(400, [{"errorCode": "INVALID_TYPE"}])
        found = [each for each in self.objects[read["name"]] if with_deleted or not each["IsDeleted"]]
        for condition in read["where"].split(" AND ") if read["where"] else ():
            found = [each for each in found if _holds(condition, each)]
        return found[:limit] if limit else found

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


def _holds(condition: str, record: dict[str, Any]) -> bool:
    if (after := AFTER.fullmatch(condition)) is not None:
        return bool(record["Id"] > after[1])
    if (since := SINCE.fullmatch(condition)) is not None:
        return datetime.fromisoformat(record["SystemModstamp"]) >= datetime.fromisoformat(since[1])
    raise _malformed("unexpected token in a condition")


def _malformed(message: str) -> RefusedError:
    return RefusedError(400, [{"errorCode": "MALFORMED_QUERY", "message": message}])
