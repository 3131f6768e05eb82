"""What a provider is: data, read from one YAML file each and validated when the engine starts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.providers.connect import Connect
from engine.providers.paging import Paging
from engine.settings import ProviderOverrides

FILES: Final = Path(__file__).parent


class Part(BaseModel):
    """A part of a provider's file: nothing unknown, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RateLimit(Part):
    """How much of the provider's allowance a sync may use (contract 5)."""

    allowed_requests: int = Field(ge=1, le=100_000)
    interval: int = Field(default=60, ge=1, le=31 * 86_400, description="seconds")
    max_concurrent_requests: int = Field(default=0, ge=0, le=1_000, description="0: no cap of its own")


class CredentialField(Part):
    """One property of a credential."""

    type: Literal["string", "boolean", "integer", "array"]
    secret: bool = False
    required: bool = False


class CredentialKind(Part):
    """One shape of `properties`: its fields, and which of them may hold the token that requests carry."""

    token: tuple[str, ...] = Field(min_length=1)
    fields: Mapping[str, CredentialField]

    @model_validator(mode="after")
    def _tokens_are_secret(self) -> "CredentialKind":
        if not all(name in self.fields and self.fields[name].secret for name in self.token):
            raise ValueError("every token must be a secret field")
        return self


class Auth(Part):
    """The header that carries the token."""

    header: str
    value: str = Field(pattern=r"\{token\}")

    def headers(self, token: str) -> dict[str, str]:
        return {self.header: self.value.format(token=token)}


class Identity(Part):
    """Where the provider tells whose token it is."""

    path: str
    id: str
    distinct_by: tuple[str, ...] = ()


class RecordPaths(Part):
    """Where a page holds its records, and a record its id and times; dots go deeper."""

    list: str
    id: str
    created: str | None = None
    updated: str | None = None


class Collection(Part):
    """One kind of upstream object."""

    path: str
    params: Mapping[str, str] = Field(default_factory=dict)
    record: RecordPaths | None = None


class Provider(Part):
    """Everything the engine knows about one third-party API."""

    name: str
    title: str
    base_url: str
    auth: Auth
    credential_kinds: Mapping[str, CredentialKind]
    identity: Identity | None = None
    rate_limit: RateLimit
    paging: Paging
    record: RecordPaths
    collections: Mapping[str, Collection]
    connect: Connect | None = None
    """How its credentials are captured in a browser, if they can be."""

    def collection(self, collection_id: str) -> Collection | None:
        """The collection an id such as `provider:name` stands for."""
        provider, _, name = collection_id.partition(":")
        return self.collections.get(name) if provider == self.name else None

    def paths(self, collection_id: str) -> RecordPaths:
        """Where that collection's pages hold what is needed of them."""
        collection = self.collection(collection_id)
        return (collection and collection.record) or self.record


class Catalogue(Mapping[str, Provider]):
    """All providers by name."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._kinds = {kind: each for each in self._providers.values() for kind in each.credential_kinds}

    def __getitem__(self, name: str) -> Provider:
        return self._providers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._providers)

    def __len__(self) -> int:
        return len(self._providers)

    @property
    def kinds(self) -> Mapping[str, Provider]:
        """Which provider a kind of credential belongs to."""
        return self._kinds


def load_catalogue(overrides: Mapping[str, ProviderOverrides]) -> Catalogue:
    """Read every provider's file, with what this installation overrides."""
    return Catalogue(_overridden(read_provider(path), overrides) for path in sorted(FILES.glob("*.yaml")))


def read_provider(path: Path) -> Provider:
    return Provider.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def _overridden(provider: Provider, overrides: Mapping[str, ProviderOverrides]) -> Provider:
    override = overrides.get(provider.name)
    if override is None:
        return provider
    changes: dict[str, object] = {}
    if override.base_url is not None:
        changes["base_url"] = override.base_url.rstrip("/")
    endpoints = override.model_dump(include={"authorize_url", "token_url"}, exclude_none=True)
    if provider.connect is not None and endpoints:
        changes["connect"] = provider.connect.model_copy(update=endpoints)
    return provider.model_copy(update=changes)
