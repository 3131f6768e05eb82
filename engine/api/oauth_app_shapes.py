"""The OAuth app object and the bodies that register and change it (contract 7)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, JsonValue

from engine.api.shapes import MASK, Given, Metadata, Name, Never, NotNull
from engine.api.verdicts import Verdict, verdict
from engine.tables import OAuthApp

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
REFUSED: Final = "The provider refuses this app's client id and secret: set the new secret."


def _return_url(value: str) -> str:
    """Exactly this URL may be returned to, so it says everything and hides nothing."""
    if not value.isascii() or not value.isprintable() or any(each in value for each in ' \\<>"'):
        raise ValueError("must be a URL, percent-encoded where it has to be")
    parts = urlsplit(value)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username is not None:
        raise ValueError("must be an absolute https URL without a user name")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("must be https; http is for this machine only")
    if "#" in value:
        raise ValueError("must have no fragment")
    return value


ReturnUrl = Annotated[str, Field(max_length=2_000), AfterValidator(_return_url)]
ReturnUrls = Annotated[
    list[ReturnUrl],
    Field(max_length=100, description="where the connect flow may send users back to, compared exactly"),
]
Secret = Annotated[str, Field(min_length=1, max_length=4_000)]


class OAuthAppBody(Given):
    """An app as the provider registered it."""

    provider: str = Field(examples=["hubspot"])
    client_id: Annotated[str, Field(min_length=1, max_length=1_000)]
    client_secret: Secret = Field(repr=False)
    name: Name
    redirect_uris: ReturnUrls = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)


class OAuthAppPatch(Given):
    """Only what is given changes."""

    name: Annotated[Name | None, NotNull()] = None
    client_secret: Annotated[Secret | None, NotNull()] = Field(default=None, repr=False)
    redirect_uris: Annotated[ReturnUrls | None, NotNull()] = None
    metadata: Metadata | None = None
    provider: Never = None
    client_id: Never = None


class OAuthAppObject(BaseModel):
    """An OAuth app (contract 7)."""

    id: UUID
    provider: str
    name: str
    client_id: str
    client_secret: str = Field(description="masked unless asked for with `truncate_secrets=false`")
    redirect_uris: list[str]
    metadata: dict[str, JsonValue]
    health: Verdict
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, app: OAuthApp, client_secret: str = MASK) -> "OAuthAppObject":
        return cls(
            id=app.id,
            provider=app.provider,
            name=app.name,
            client_id=app.client_id,
            client_secret=client_secret,
            redirect_uris=app.redirect_uris,
            metadata=app.meta,
            health=verdict(app.rejected_at, app.updated_at, REFUSED),
            created_at=app.created_at,
            updated_at=app.updated_at,
        )


class ServerOwnApp(BaseModel):
    """Stands for the service's own OAuth app (contract 2.1)."""

    kind: Literal["sequin"] = "sequin"


class UnknownApp(BaseModel):
    """An app that is registered elsewhere: all that is known is the id that came with the credential."""

    id: UUID


EmbeddedApp: TypeAlias = OAuthAppObject | UnknownApp | ServerOwnApp
Apps: TypeAlias = Mapping[UUID, OAuthApp]
"""The organisation's own apps that some credentials refer to."""


def embedded(app_id: UUID | None, apps: Apps) -> EmbeddedApp:
    """What a credential shows of its app."""
    if app_id is None:
        return ServerOwnApp()
    app = apps.get(app_id)
    return UnknownApp(id=app_id) if app is None else OAuthAppObject.of(app)
