"""How a provider hands out credentials in a browser: its OAuth2 endpoints as data, read by pure functions."""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from engine.tables.base import JsonObject

Inputs: TypeAlias = Mapping[str, str]
NOT = "not "


class Connect(BaseModel):
    """The `connect` section of a provider's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """The kind of credential that comes out."""
    authorize_url: str = Field(pattern=r"^https?://")
    token_url: str = Field(pattern=r"^https?://")
    scopes: tuple[str, ...] = ()
    scope_separator: str = " "
    params: Mapping[str, str] = Field(default_factory=dict)
    """What else the authorise URL has to carry."""
    token_params: Mapping[str, str] = Field(default_factory=dict)
    """What else the token request has to say."""
    client_auth: Literal["body", "basic"] = "body"
    pkce: bool = True
    """False for a provider that refuses what it does not know, instead of passing over it."""
    inputs: Mapping[str, str] = Field(default_factory=dict)
    """What the start link has to bring, as patterns; `{name}` stands for it in both URLs."""
    returns: Mapping[str, str] = Field(default_factory=dict)
    """What has to come back beside the code, as patterns; the identity endpoint has to confirm it, as anybody
    may change an address that a browser goes to."""
    properties: Mapping[str, str] = Field(min_length=1)
    """Property to where the token answer holds it: dots go deeper, `input.name` is what the link brought,
    `callback.name` what came back beside the code, `identity.` leads into what the provider's identity
    endpoint says of the token, and a leading `not ` turns a boolean around."""

    @property
    def asks_whose(self) -> bool:
        """Whether a property is known to the provider's identity endpoint only."""
        return any(path.startswith("identity.") for path in self.properties.values())


def missing_inputs(connect: Connect, given: Inputs) -> list[str]:
    """The inputs that are not there or not what they must look like."""
    return _unfit(connect.inputs, given)


def missing_returns(connect: Connect, given: Inputs) -> list[str]:
    """The same of what came back beside the code."""
    return _unfit(connect.returns, given)


def authorize_url(
    connect: Connect,
    *,
    client_id: str,
    redirect_uri: str,
    state: str,
    scope: str | None,
    inputs: Inputs,
    verifier: str,
) -> str:
    """Where the browser goes so that its user can agree."""
    scope = connect.scope_separator.join(scope.split() if scope else connect.scopes)
    query = {
        **connect.params,
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        **({"scope": scope} if scope else {}),
        **({"code_challenge": challenge(verifier), "code_challenge_method": "S256"} if connect.pkce else {}),
    }
    return with_query(connect.authorize_url.format_map(inputs), query)


def token_url(connect: Connect, inputs: Inputs) -> str:
    return connect.token_url.format_map(inputs)


def token_form(connect: Connect, *, code: str, redirect_uri: str, verifier: str) -> dict[str, str]:
    """The token request, without what identifies the client."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    form |= connect.token_params
    return form | ({"code_verifier": verifier} if connect.pkce else {})


def properties_of(connect: Connect, arrays: Collection[str], document: JsonObject) -> JsonObject:
    """The credential's properties; those that are arrays are split where the provider joined them."""
    properties: JsonObject = {"kind": connect.kind}
    for name, path in connect.properties.items():
        value = _value(document, path)
        if name in arrays and isinstance(value, str):
            value = list(value.replace(",", " ").split())
        if value is not None:
            properties[name] = value
    return properties


def challenge(verifier: str) -> str:
    """RFC 7636, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def with_query(url: str, query: Mapping[str, str]) -> str:
    """The URL with more query parameters; those it has stay as they are."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))


def _unfit(patterns: Mapping[str, str], given: Inputs) -> list[str]:
    return [name for name, pattern in patterns.items() if not re.fullmatch(pattern, given.get(name, ""))]


def _value(document: JsonObject, path: str) -> JsonValue:
    value: JsonValue = document
    for name in path.removeprefix(NOT).split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if path.startswith(NOT):
        return not value if isinstance(value, bool) else None
    return value
