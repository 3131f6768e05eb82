"""GitHub as its reference tells.

App tokens: https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
JWT: https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
Paging: https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
Limits: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.peers.providers.refusals import Fake, Objects, RefusedError, dated, query

ALLOWED = {
    "repositories": ("per_page", "page"),
    "pulls": ("state", "head", "base", "sort", "direction", "per_page", "page"),
    "issues": ("state", "sort", "direction", "since", "per_page", "page", "labels", "creator"),
    "commits": ("sha", "path", "author", "since", "until", "per_page", "page"),
    "releases": ("per_page", "page"),
}
INVALID = {"message": "Validation Failed"}
MISSING = {"message": "Not Found"}


@dataclass
class GitHub(Fake):
    """One installation of one App; `lists` is what each repository has, None what answers 409 or 410."""

    host: str = "api.github.com"
    app_id: str = "12345"
    installation_id: int = 77
    key: RSAPrivateKey = field(default_factory=lambda: _a_key())
    repositories: list[dict[str, Any]] = field(default_factory=list)
    lists: Objects = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    issued: int = 0
    remaining: int = 5000
    reset_in_s: int = 600

    @property
    def private_key(self) -> str:
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return pem.decode()

    def add(self, name: str, **counts: int) -> None:
        """A repository with so many of each."""
        number = len(self.repositories) + 1
        self.repositories.append(
            {
                "id": number,
                "full_name": name,
                "created_at": dated(number),
                "updated_at": dated(number),
                "pushed_at": dated(number),
            }
        )
        for kind, count in counts.items():
            self.lists[f"/repos/{name}/{kind}"] = [_thing(kind, number, each) for each in range(count)]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if not request.headers.get("user-agent"):
            raise RefusedError(403, {"message": "Request forbidden by administrative rules"})
        if request.headers.get("x-github-api-version") != "2022-11-28":
            raise RefusedError(400, {"message": "unsupported API version"})
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise RefusedError(401, {"message": "Requires authentication"})
        if request.url.path == f"/app/installations/{self.installation_id}/access_tokens":
            return self._issue(request, token)
        if token not in self.tokens:
            raise RefusedError(401, {"message": "Bad credentials"})
        return self._count(self._page(request))

    def _count(self, answer: httpx.Response) -> httpx.Response:
        headers = {"x-ratelimit-limit": "5000", "x-ratelimit-reset": str(int(time.time()) + self.reset_in_s)}
        if self.remaining == 0:
            refusal = {"message": "API rate limit exceeded"}
            raise RefusedError(403, refusal, headers | {"x-ratelimit-remaining": "0"})
        self.remaining -= 1
        answer.headers.update(headers | {"x-ratelimit-remaining": str(self.remaining)})
        return answer

    def _page(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path in self.broken:
            raise RefusedError(self.broken[path], {"message": "Gone"})
        found = self.repositories if path == "/installation/repositories" else self.lists.get(path)
        if found is None:
            raise RefusedError(404, MISSING)
        asked = query(request, ALLOWED[path.rsplit("/", 1)[1]], INVALID)
        found = _ordered(path.rsplit("/", 1)[1], found, asked)
        size, page = min(int(asked.get("per_page", "30")), 100), int(asked.get("page", "1"))
        some = found[(page - 1) * size : page * size]
        body: object = some
        if path == "/installation/repositories":
            body = {"total_count": len(found), "repositories": some}
        links = ", ".join(self._links(request, page, -(-len(found) // size)))
        return httpx.Response(200, json=body, headers={"Link": links} if links else {})

    def _links(self, request: httpx.Request, page: int, last: int) -> Iterator[str]:
        for rel, number in (("prev", page - 1), ("next", page + 1), ("last", last)):
            if 1 <= number <= last and number != page:
                yield f'<{request.url.copy_set_param("page", number)}>; rel="{rel}"'

    def _issue(self, request: httpx.Request, signed: str) -> httpx.Response:
        if request.method != "POST" or not self._knows(signed):
            raise RefusedError(401, {"message": "A JSON web token could not be decoded"})
        self.issued += 1
        self.tokens.append(f"ghs_{self.issued}")
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return httpx.Response(201, json={"token": self.tokens[-1], "expires_at": end, "permissions": {}})

    def _knows(self, signed: str) -> bool:
        head, claims, signature = signed.split(".")
        try:
            self.key.public_key().verify(_bytes(signature), f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        said, now = json.loads(_bytes(claims)), time.time()
        is_timely = said["iat"] <= now < said["exp"] <= now + 600
        return json.loads(_bytes(head))["alg"] == "RS256" and said["iss"] == self.app_id and is_timely


def _ordered(kind: str, found: list[dict[str, Any]], asked: dict[str, str]) -> list[dict[str, Any]]:
    """The list as asked for; unasked, other lists than commits come by creation, newest first."""
    if kind == "repositories":
        return found
    if kind == "commits":
        found = sorted(found, key=_committed_at, reverse=True)
        return [each for each in found if _committed_at(each) >= asked.get("since", "")]
    by, direction = asked.get("sort", "created"), asked.get("direction", "desc")
    if by not in {"created", "updated"} or direction not in {"asc", "desc"}:
        raise RefusedError(422, INVALID)
    found = sorted(found, key=lambda each: str(each[f"{by}_at"]), reverse=direction == "desc")
    return [each for each in found if each["updated_at"] >= asked.get("since", "")]


def _committed_at(commit: dict[str, Any]) -> str:
    return str(commit["commit"]["committer"]["date"])


@cache
def _a_key() -> RSAPrivateKey:
    """One for all fakes; making it takes a while."""
    return generate_private_key(65537, 2048)


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _thing(kind: str, repository: int, number: int) -> dict[str, Any]:
    moment = dated(number)
    if kind == "commits":  # forks share their commits
        return {
            "sha": f"{number:040x}",
            "commit": {"author": {"date": moment}, "committer": {"date": moment}},
        }
    thing: dict[str, Any] = {"id": repository * 10_000 + number, "created_at": moment, "updated_at": moment}
    if kind == "issues" and number % 3 == 0:
        thing["pull_request"] = {"url": "https://api.github.com/"}
    return thing
