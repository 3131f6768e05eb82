"""QuickBooks Online as its reference tells.

Queries: https://developer.intuit.com/app/developer/qbo/docs/learn/explore-the-quickbooks-online-api/data-queries
Changes: https://developer.intuit.com/app/developer/qbo/docs/learn/explore-the-quickbooks-online-api/change-data-capture
Tokens: https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.peers.providers.refusals import Fake, Objects, RefusedError, query
from tests.peers.providers.tokens import Tokens

SELECT = re.compile(
    r"select \* from (?P<entity>\w+) where (?P<all>Active in \(true, false\) and )?"
    r"MetaData\.LastUpdatedTime >= '(?P<since>[^']+)' orderby MetaData\.LastUpdatedTime "
    r"startposition (?P<start>[1-9]\d*) maxresults (?P<size>\d+)"
)
NAMED = ("Account", "Class", "Customer", "Department", "Employee", "Item", "PaymentMethod", "Term", "Vendor")
"""Those that can be inactive; the others have no such field to ask for."""


def fault(code: str, kind: str = "ValidationFault") -> dict[str, object]:
    return {"Fault": {"Error": [{"Message": "no", "code": code}], "type": kind}}


@dataclass
class QuickBooks(Fake):
    """One company."""

    host: str = "quickbooks.api.intuit.com"
    token_host: str | None = "oauth.platform.intuit.com"
    realm_id: str = "9130357849536906"
    tokens: Tokens = field(default_factory=lambda: Tokens(rotates=True, in_header=True))
    objects: Objects = field(default_factory=dict)
    gone: Objects = field(default_factory=dict)
    is_busy: bool = False

    def fill(self, entity: str, count: int, *, at_once: int = 1) -> None:
        """So many at the same time share the second of their last update."""
        self.objects[entity] = [
            {"Id": str(number + 1), "Active": number % 7 > 0, "MetaData": _times(number // at_once)}
            for number in range(count)
        ]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == self.token_host:
            if request.url.path != "/oauth2/v1/tokens/bearer":
                raise RefusedError(404, {})
            return self.tokens.issue(request)
        self.tokens.check(request, 401, fault("3200", "AUTHENTICATION"))
        if request.headers.get("accept") != "application/json":
            raise RefusedError(406, {})
        if self.is_busy:
            raise RefusedError(429, fault("3001", "THROTTLE"))
        company = f"/v3/company/{self.realm_id}"
        if request.url.path == f"{company}/companyinfo/{self.realm_id}":
            return httpx.Response(200, json={"CompanyInfo": {"Id": "1", "CompanyName": "Choam"}})
        if request.url.path == f"{company}/cdc":
            return self._changed(request)
        if request.url.path != f"{company}/query":
            raise RefusedError(403, fault("3100", "AUTHORIZATION"))
        asked = query(request, ("query", "minorversion"), fault("4000"))
        read = SELECT.fullmatch(asked.get("query", ""))
        if read is None or read["entity"] not in self.objects or int(read["size"]) > 1000:
            raise RefusedError(400, fault("4000"))
        if bool(read["all"]) is not (read["entity"] in NAMED):
            raise RefusedError(400, fault("4001"))
        return httpx.Response(200, json=self._select(read))

    def delete(self, entity: str, upstream_id: str, at: str) -> None:
        found = self.objects[entity]
        found[:] = [each for each in found if each["Id"] != upstream_id]
        told = {"domain": "QBO", "status": "Deleted", "Id": upstream_id, "MetaData": {"LastUpdatedTime": at}}
        self.gone.setdefault(entity, []).append(told)

    def _changed(self, request: httpx.Request) -> httpx.Response:
        """What was changed or deleted, as far as 1,000 reach."""
        asked = query(request, ("entities", "changedSince", "minorversion"), fault("4000"))
        entity, since = asked["entities"], datetime.fromisoformat(asked["changedSince"])
        if entity not in self.objects or since < datetime.now(UTC) - timedelta(days=30):
            raise RefusedError(400, fault("4000"))
        some = [each for each in self.objects[entity] + self.gone.get(entity, []) if _updated(each) >= since]
        told = {entity: some[:1000]} if some else {}
        return httpx.Response(200, json={"CDCResponse": [{"QueryResponse": [told]}]})

    def _select(self, read: re.Match[str]) -> dict[str, Any]:
        since, start = datetime.fromisoformat(read["since"]), int(read["start"])
        hits = [each for each in self.objects[read["entity"]] if _updated(each) >= since]
        some = sorted(hits, key=_updated)[start - 1 : start - 1 + int(read["size"])]
        found = {read["entity"]: some, "startPosition": start, "maxResults": len(some)} if some else {}
        return {"QueryResponse": found, "time": "2026-01-01T00:00:00.000-08:00"}


def _updated(record: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(record["MetaData"]["LastUpdatedTime"])


def _times(number: int) -> dict[str, str]:
    moment = f"2025-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}-08:00"
    return {"CreateTime": moment, "LastUpdatedTime": moment}
