"""How requests are authorised: how the token is carried, and how a kind of credential comes by it."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, JsonValue

from engine.providers.part import Part
from engine.providers.urls import placeholders

ClientAuth: TypeAlias = Literal["body", "basic"]
"""Where a token request tells the client's id and secret."""
CARRIABLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Auth(Part):
    """The header that carries the token."""

    header: str = "Authorization"
    value: str = Field(default="Bearer {token}", pattern=r"\{token\}")

    def headers(self, token: str) -> dict[str, str]:
        return {self.header: self.value.replace("{token}", token)}


class Static(Part):
    """The credential holds the token itself, in the first of these fields that it has."""

    kind: Literal["static"]
    fields: tuple[str, ...] = Field(min_length=1)

    @property
    def needs(self) -> Sequence[Sequence[str]]:
        return (self.fields,)

    def token(self, values: Mapping[str, JsonValue]) -> str:
        return next(str(values[name]) for name in self.fields if name in values)


class Basic(Part):
    """User name and password of HTTP's basic authentication, each a template over the fields."""

    kind: Literal["basic"]
    username: str
    password: str

    @property
    def needs(self) -> Sequence[Sequence[str]]:
        return tuple((name,) for name in placeholders(self.username + self.password))

    def token(self, values: Mapping[str, JsonValue]) -> str:
        pair = f"{_filled(self.username, values)}:{_filled(self.password, values)}"
        return base64.b64encode(pair.encode()).decode()


class Refresh(Part):
    """A refresh token is exchanged for access tokens that last for a while (RFC 6749, section 6)."""

    kind: Literal["refresh"]
    field: str = "refresh_token"
    token_url: str = Field(pattern=r"^(https://|/)")
    """A path is one below the credential's own base URL."""
    client_auth: ClientAuth = "body"
    lifetime_s: int = Field(default=3600, ge=60)
    """How long an access token lasts when the answer does not say."""
    refusals: tuple[str, ...] = ("invalid_grant",)
    """What the answer calls a refresh token that is no longer good."""
    otherwise: str | None = None
    """The field whose token is carried as it is by a credential without a refresh token."""

    @property
    def needs(self) -> Sequence[Sequence[str]]:
        return ((self.field, *([self.otherwise] if self.otherwise else [])),)


class Signed(Part):
    """The client shows who it is with a JSON Web Token that it signs with RSA-PSS (RFC 7523, section 2.2)."""

    key_id: str
    """The field that names the key."""
    claims: Mapping[str, str] = Field(default_factory=dict)
    """What the token says besides, as templates over the fields."""

    @property
    def needs(self) -> Sequence[str]:
        return (self.key_id, *placeholders("".join(self.claims.values())))

    def head(self, values: Mapping[str, JsonValue]) -> dict[str, str]:
        return {"alg": "PS256", "typ": "JWT", "kid": str(values[self.key_id])}

    def said(self, values: Mapping[str, JsonValue]) -> dict[str, str]:
        return {name: _filled(template, values) for name, template in self.claims.items()}


class ClientCredentials(Part):
    """The credential is an application's own id and secret (RFC 6749, section 4.4)."""

    kind: Literal["client_credentials"]
    fields: tuple[str, str] = ("client_id", "client_secret")
    """Which hold them; the second is a private key where the client signs."""
    signed: Signed | None = None
    token_url: str = Field(pattern=r"^(https://|/)")
    """A path is one below the credential's own base URL."""
    params: Mapping[str, str] = Field(default_factory=dict)
    """What else the token request says, as templates over the fields."""
    client_auth: ClientAuth = "body"
    lifetime_s: int = Field(default=3600, ge=60)
    refusals: tuple[str, ...] = ("invalid_client", "invalid_grant", "unauthorized_client", "access_denied")

    @property
    def needs(self) -> Sequence[Sequence[str]]:
        others = (*(self.signed.needs if self.signed else ()), *placeholders("".join(self.params.values())))
        return tuple((name,) for name in (*self.fields, *others))

    def form(self, values: Mapping[str, JsonValue]) -> dict[str, str]:
        """The token request, without what identifies the client."""
        params = {name: _filled(template, values) for name, template in self.params.items()}
        return {"grant_type": "client_credentials", **params}


class Installation(Part):
    """An app's private key signs for short-lived tokens of one installation (GitHub Apps)."""

    kind: Literal["installation"]
    path: str

    @property
    def needs(self) -> Sequence[Sequence[str]]:
        return tuple((name,) for name in placeholders(self.path))


Held: TypeAlias = Static | Basic
"""The credential holds all that a request carries."""
Exchanged: TypeAlias = Refresh | ClientCredentials
"""Tokens come of a token endpoint of OAuth2."""
Issued: TypeAlias = Exchanged | Installation
"""The provider issues the token that a request carries, for a while."""
Grant: TypeAlias = Annotated[Held | Issued, Field(discriminator="kind")]


def settled(grant: Grant, values: Mapping[str, JsonValue]) -> Grant:
    """What a credential with these values rests on, where its kind leaves a choice."""
    if isinstance(grant, Refresh) and grant.otherwise is not None and grant.field not in values:
        return Static(kind="static", fields=(grant.otherwise,))
    return grant


def proof(grant: Grant, values: Mapping[str, JsonValue]) -> str:
    """What tells this credential from every other: the values that its grant rests on."""
    held = [next(str(values[name]) for name in names if name in values) for names in grant.needs]
    return held[0] if len(held) == 1 else json.dumps(held)


def is_carriable(token: str) -> bool:
    """Whether a header can carry it: printable ASCII, and no blanks around it."""
    return CARRIABLE.fullmatch(token) is not None


def _filled(template: str, values: Mapping[str, JsonValue]) -> str:
    for name in placeholders(template):
        template = template.replace(f"{{{name}}}", str(values[name]))
    return template
