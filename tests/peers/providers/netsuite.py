"""NetSuite's SuiteQL by REST as its reference tells.

Queries: https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_157909186990.html
Tokens: https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_162790605110.html
"""

import base64
import json
import re
import time
from dataclasses import dataclass, field

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.peers.providers.refusals import Fake, Objects, RefusedError, form, limit, query
from tests.peers.providers.tokens import Tokens

TOKEN = "/services/rest/auth/oauth2/v1/token"
SUITEQL = "/services/rest/query/v1/suiteql"
SELECT = re.compile(r"SELECT \* FROM (?P<table>\w+) WHERE id > (?P<after>-?\d+) ORDER BY id")


def refusal(status: int, code: str) -> RefusedError:
    return RefusedError(status, {"status": status, "o:errorDetails": [{"o:errorCode": code, "detail": "no"}]})


@dataclass
class NetSuite(Fake):
    """One account with one integration, whose certificate is mapped."""

    host: str = "1234567-sb1.suitetalk.api.netsuite.com"
    key: RSAPrivateKey = field(default_factory=lambda: generate_private_key(65537, 2048))
    client_id: str = "client-1"
    certificate_id: str = "certificate-1"
    tokens: Tokens = field(default_factory=Tokens)
    objects: Objects = field(default_factory=dict)
    is_busy: bool = False
    at_once: int = 1000

    @property
    def private_key(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def fill(self, table: str, count: int, first: int = 1) -> None:
        self.objects[table] = [
            {"links": [], "id": str(first + number), "lastmodifieddate": "1/2/2025"}
            for number in range(count)
        ]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == TOKEN:
            return self._issue(request)
        self.tokens.check(request, 401, {"status": 401, "title": "Unauthorized"})
        if self.is_busy:
            raise refusal(429, "CONCURRENCY_LIMIT_EXCEEDED")
        if (request.method, request.url.path) != ("POST", SUITEQL):
            raise refusal(404, "NONEXISTENT_ENDPOINT")
        if request.headers.get("prefer") != "transient":
            raise refusal(400, "INVALID_HEADER")
        size = limit(query(request, ("limit", "offset"), {}).get("limit"), 1000, 1000, {})
        asked = json.loads(request.content)
        read = SELECT.fullmatch(asked.get("q", ""))
        if list(asked) != ["q"] or read is None or read["table"] not in self.objects:
            raise refusal(400, "INVALID_PARAMETER")
        found = sorted(self.objects[read["table"]], key=lambda each: int(each["id"]))
        hits = [each for each in found if int(each["id"]) > int(read["after"])]
        some = hits[: min(size, self.at_once)]
        told = {"count": len(some), "hasMore": len(some) < len(hits), "totalResults": len(hits), "offset": 0}
        return httpx.Response(200, json={"links": [], "items": some} | told)

    def _issue(self, request: httpx.Request) -> httpx.Response:
        asked = form(request)
        is_fit = asked.get("grant_type") == "client_credentials" and asked.get("client_assertion_type") == (
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        )
        if not (is_fit and self._knows(asked.get("client_assertion", ".."))):
            raise RefusedError(400, {"error": "invalid_grant"})
        self.tokens.issued += 1
        self.tokens.good.append(f"access-{self.tokens.issued}")
        told = {
            "access_token": self.tokens.good[-1],
            "expires_in": "3600",
            "token_type": "bearer",
        }
        return httpx.Response(200, json=told)

    def _knows(self, signed: str) -> bool:
        head, claims, signature = signed.split(".")
        padding = PSS(MGF1(SHA256()), PSS.DIGEST_LENGTH)
        try:
            self.key.public_key().verify(_bytes(signature), f"{head}.{claims}".encode(), padding, SHA256())
        except InvalidSignature:
            return False
        named, said, now = json.loads(_bytes(head)), json.loads(_bytes(claims)), time.time()
        is_timely = said["iat"] <= now < said["exp"] < said["iat"] + 3600
        is_mine = named == {"typ": "JWT", "alg": "PS256", "kid": self.certificate_id}
        wanted = {"iss": self.client_id, "scope": "rest_webservices", "aud": f"https://{self.host}{TOKEN}"}
        return is_timely and is_mine and said == said | wanted


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
