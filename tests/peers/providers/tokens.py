"""A token endpoint of OAuth2 (RFC 6749, sections 2.3, 4 and 6), and what it has issued."""

import base64
from dataclasses import dataclass, field

import httpx

from tests.peers.providers.refusals import RefusedError, form


@dataclass
class Tokens:
    """Issues access tokens to one client, for a refresh token or for nothing but its secret."""

    client: tuple[str, str] = ("client-1", "client-secret-1")
    refresh_token: str | None = "refresh-0"
    rotates: bool = False
    in_header: bool = False
    """Whether the client's id and secret have to come in the header."""
    code: str = "from-the-provider"
    pkce: bool = False
    params: dict[str, str] = field(default_factory=dict)
    """What else a request has to say."""
    says: dict[str, str] = field(default_factory=dict)
    """What the answer holds besides."""
    lasts_s: int = 3600
    issued: int = 0
    good: list[str] = field(default_factory=list)

    def issue(self, request: httpx.Request) -> httpx.Response:
        asked = form(request)
        if request.method != "POST" or self._client(request, asked) != self.client:
            raise RefusedError(401, {"error": "invalid_client"})
        match asked.get("grant_type"):
            case "client_credentials" if self.refresh_token is None:
                is_good = True
            case "refresh_token" if self.refresh_token is not None:
                is_good = asked.get("refresh_token") == self.refresh_token
            case "authorization_code" if self.refresh_token is not None:
                is_good = asked.get("code") == self.code and (not self.pkce or "code_verifier" in asked)
            case _:
                raise RefusedError(400, {"error": "unsupported_grant_type"})
        if not is_good:
            raise RefusedError(400, {"error": "invalid_grant"})
        if any(asked.get(name) != value for name, value in self.params.items()):
            raise RefusedError(403, {"error": "access_denied"})
        self.issued += 1
        self.good.append(f"access-{self.issued}")
        if self.rotates:
            self.refresh_token = f"refresh-{self.issued}"
        told = {"access_token": self.good[-1], "token_type": "Bearer", "expires_in": self.lasts_s}
        more = {} if self.refresh_token is None else {"refresh_token": self.refresh_token}
        return httpx.Response(200, json=told | more | self.says)

    def check(self, request: httpx.Request, status: int, refusal: object) -> None:
        """Refuse requests that carry nothing that was issued, or what has ended since."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.good:
            raise RefusedError(status, refusal)

    def expire(self) -> None:
        self.good.clear()

    def _client(self, request: httpx.Request, asked: dict[str, str]) -> tuple[str, str] | None:
        if not self.in_header:
            return asked.get("client_id", ""), asked.get("client_secret", "")
        return basic(request)


def basic(request: httpx.Request) -> tuple[str, str] | None:
    """User name and password, if they came."""
    scheme, _, pair = request.headers.get("authorization", "").partition(" ")
    if scheme != "Basic":
        return None
    name, _, password = base64.b64decode(pair).decode().partition(":")
    return name, password
