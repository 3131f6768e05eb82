"""Token requests and their answers, as pure functions: RFC 6749 section 6, and GitHub's App tokens."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote_plus

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, Field, JsonValue

from engine.providers.answer import UnreadableAnswerError
from engine.providers.auth import Exchanged, Signed
from engine.providers.paths import instant
from engine.providers.urls import fill
from engine.tables.base import JsonMapping

MARGIN: Final = timedelta(seconds=60)
"""A token is not used so shortly before its end that it may end under way."""
CLOCK_SKEW: Final = timedelta(seconds=60)
SIGNED_FOR: Final = timedelta(minutes=9)  # ten at most, says GitHub, by its own clock


ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class UnusableKeyError(Exception):
    """What should be an RSA private key in PEM is none."""


class Tokens(BaseModel):
    """What a provider issued."""

    access_token: str = Field(repr=False)
    expires_at: datetime
    refresh_token: str | None = Field(default=None, repr=False)
    """The one to use next, where the provider replaces it with each use."""

    def is_good(self, now: datetime, refused: str | None) -> bool:
        """Whether requests may carry it: it lasts for a while, and nobody saw it refused."""
        return self.expires_at - MARGIN > now and self.access_token != refused


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A POST to a token endpoint."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)


def token_request(
    grant: Exchanged, url: str, client_id: str, client_secret: str, form: Mapping[str, str]
) -> TokenRequest:
    """The form, with what identifies the client where the provider expects it."""
    headers = {"Accept": "application/json"}
    if grant.client_auth == "body":
        return TokenRequest(url, headers, {**form, "client_id": client_id, "client_secret": client_secret})
    return TokenRequest(url, headers | {"Authorization": client_header(client_id, client_secret)}, form)


def client_header(client_id: str, client_secret: str) -> str:
    """RFC 6749, section 2.3.1: both are form-encoded before they are joined, as either may hold a colon."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def installation_request(
    url: str, headers: Mapping[str, str], signed: str, values: Mapping[str, JsonValue]
) -> TokenRequest:
    """The request of an app that has signed who it is."""
    return TokenRequest(fill(url, values), {**headers, "Authorization": f"Bearer {signed}"})


def read_exchanged(grant: Exchanged, answer: JsonMapping, now: datetime) -> Tokens:
    """An answer of RFC 6749 section 5.1; raises when it is none."""
    token, refresh, lifetime = (answer.get(name) for name in ("access_token", "refresh_token", "expires_in"))
    if not isinstance(token, str) or not token:
        raise UnreadableAnswerError("sent no access token")
    seconds = int(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else grant.lifetime_s
    return Tokens(
        access_token=token,
        expires_at=now + timedelta(seconds=min(seconds, 365 * 86_400)),
        refresh_token=refresh if isinstance(refresh, str) and refresh else None,
    )


def read_installed(answer: JsonMapping) -> Tokens:
    """An answer that holds `token` and `expires_at`; raises for any other."""
    token, end = answer.get("token"), instant(answer.get("expires_at"))
    if not isinstance(token, str) or not token or end is None:
        raise UnreadableAnswerError("sent no installation token")
    return Tokens(access_token=token, expires_at=end)


def sign(app_id: str, private_key: str, now: datetime) -> str:
    """A JSON Web Token (RFC 7519) that says who the app is, signed with RS256."""
    return _signed({"alg": "RS256", "typ": "JWT"}, {}, PKCS1v15(), app_id, private_key, now)


def assertion(
    signed: Signed, values: Mapping[str, JsonValue], client_id: str, private_key: str, url: str, now: datetime
) -> dict[str, str]:
    """How a client that signs shows who it is (RFC 7523, section 2.2)."""
    claims = {"aud": url, **signed.said(values)}
    padding = PSS(MGF1(SHA256()), PSS.DIGEST_LENGTH)
    token = _signed(signed.head(values), claims, padding, client_id, private_key, now)
    return {"client_assertion_type": ASSERTION, "client_assertion": token}


def _signed(
    head: Mapping[str, str],
    claims: Mapping[str, str],
    padding: AsymmetricPadding,
    issuer: str,
    private_key: str,
    now: datetime,
) -> str:
    try:
        key = load_pem_private_key(private_key.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error):
        raise UnusableKeyError from None
    if not isinstance(key, RSAPrivateKey):
        raise UnusableKeyError
    moment = now.timestamp()
    times = {
        "iat": int(moment - CLOCK_SKEW.total_seconds()),
        "exp": int(moment + SIGNED_FOR.total_seconds()),
    }
    text = f"{_part(head)}.{_part({**claims, **times, 'iss': issuer})}"
    return f"{text}.{_base64url(key.sign(text.encode(), padding, SHA256()))}"


def _part(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
