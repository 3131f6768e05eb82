"""What a provider is: data, read from one YAML file each and validated when the engine starts."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, JsonValue, model_validator

from engine.numbers import NUMBER
from engine.providers.auth import Auth, Exchanged, Grant
from engine.providers.changes import EventFeed, Gone, UpdatedSince
from engine.providers.collection import Collection, Others
from engine.providers.connect import Connect
from engine.providers.faults import Faults
from engine.providers.part import Part
from engine.providers.throttle import Throttle
from engine.providers.urls import check_segments, fill, path_of, placeholders, resolve
from engine.settings import ProviderOverrides
from engine.tables.base import JsonObject

FILES: Final = Path(__file__).parent
COMMON: Final = ("path", "params", "body", "paging", "newest_first")
"""What a provider's file may say once for all collections."""


class RateLimit(Part):
    """How much of the provider's allowance a sync may use (contract 5)."""

    allowed_requests: Annotated[int, Field(ge=1, le=100_000), NUMBER]
    interval: Annotated[int, Field(ge=1, le=31 * 86_400, description="seconds"), NUMBER] = 60
    max_concurrent_requests: Annotated[
        int, Field(ge=0, le=1_000, description="0: no cap of its own"), NUMBER
    ] = 0


class CredentialField(Part):
    """One property of a credential."""

    type: Literal["string", "boolean", "integer", "array", "id"]
    """An id is a string or an integer: documented as one and seen as the other (contract 14, row 10)."""
    secret: bool = False
    required: bool = False


class CredentialKind(Part):
    """One shape of `properties`: its fields, how it comes by a token, and which fields name the account."""

    grant: Grant
    fields: Mapping[str, CredentialField]
    account: tuple[str, ...] = ()
    auth: Auth | None = None
    """Instead of the provider's."""

    @model_validator(mode="after")
    def _knows_what_it_uses(self) -> "CredentialKind":
        unknown = {*self.account, *(name for names in self.grant.needs for name in names)} - set(self.fields)
        if unknown:
            raise ValueError(f"not among the fields: {', '.join(sorted(unknown))}")
        return self


class Identity(Part):
    """Where the provider tells whose token it is."""

    path: str
    """`{name}` in it is a property of the credential."""
    id: str
    body: JsonObject | None = None
    """Sent by POST, as JSON; without it the answer is got."""
    distinct_by: tuple[str, ...] = ()


class Provider(Part):
    """Everything the engine knows about one third-party API."""

    name: str
    title: str
    base_url: str
    """`{name}` in it is a property of the credential; then `hosts` says where it may lead."""
    hosts: tuple[str, ...] = ()
    prefix: str = ""
    """What the paths of collections and of the identity have in common; `{name}` is a property here too."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """What every request carries besides the token."""
    auth: Auth = Auth()
    credential_kinds: Mapping[str, CredentialKind]
    identity: Identity | None = None
    rate_limit: RateLimit
    throttle: Throttle = Throttle()
    faults: Faults | None = None
    """How answers tell what went wrong where their status does not."""
    forbidden: Literal["credential", "collection"] = "credential"
    """What a 403 refuses: some providers answer so when the credential lacks one permission."""
    changes: EventFeed | None = None
    """Where neither it nor the collection tells of changes, they show only when everything is read again."""
    collections: Mapping[str, Collection]
    others: Others | None = None
    """What there is in some accounts only."""
    connect: Connect | None = None
    """How its credentials are captured in a browser, if they can be."""

    @model_validator(mode="before")
    @classmethod
    def _common(cls, value: Any) -> Any:
        """What stands for every collection that says nothing else; `record` is taken entry by entry."""
        if not isinstance(value, dict) or not isinstance(value.get("collections"), dict):
            return value
        record, changes = value.get("record") or {}, value.get("changes")
        common = {key: value[key] for key in COMMON if key in value}
        outer = {key: each for key, each in value.items() if key not in {*COMMON, "record"}}
        if isinstance(changes, dict) and changes.get("kind") == "event_feed":
            outer["changes"] = {"paging": common.get("paging"), **changes}
        elif isinstance(changes, dict):
            common["changes"] = outer.pop("changes")

        def whole(each: dict[str, Any]) -> dict[str, Any]:
            return {**common, **each, "record": record | (each.get("record") or {})}

        outer["collections"] = {name: whole(each) for name, each in value["collections"].items()}
        if isinstance(others := value.get("others"), dict) and isinstance(others.get("collection"), dict):
            outer["others"] = others | {"collection": whole(others["collection"])}
        return outer

    @model_validator(mode="after")
    def _holds_together(self) -> "Provider":
        for name, each in self.collections.items():
            self._check_parents(name, each)
            if bool(placeholders(each.path)) is not bool(each.parent):
                raise ValueError(f"{name}: a path has placeholders exactly when there is a parent")
            if each.parent and isinstance(self.changes_of(f"{self.name}:{name}"), EventFeed):
                raise ValueError(f"{name}: an event does not tell the parent, so it needs changes of its own")
            each.body_at(None)
            if each.changes is not None:
                each.narrowed(each.changes, datetime.now(UTC)).body_at(None)
        own = placeholders(self.base_url)
        if own and not self.hosts:
            raise ValueError("a base URL with placeholders needs hosts")
        for kind, shape in self.credential_kinds.items():
            needed = (*own, *placeholders(self.prefix))
            if not all(each in shape.fields and shape.fields[each].required for each in needed):
                raise ValueError(f"{kind}: the base URL needs {', '.join(needed)} as required fields")
        if self.connect is not None and self.connect.returns and self.identity is None:
            raise ValueError("what a browser brings has to be confirmed: identity is missing")
        return self

    def _check_parents(self, name: str, collection: Collection) -> None:
        seen, parent = {name}, collection.parent
        while parent is not None:
            if parent.collection in seen or parent.collection not in self.collections:
                raise ValueError(f"{name}: the parent must be a collection, and not below itself")
            seen.add(parent.collection)
            parent = self.collections[parent.collection].parent

    def bound(self, kind: str, properties: Mapping[str, JsonValue]) -> "Provider":
        """The same provider as one credential sees it: its place below the base URL, its way in."""
        bound: dict[str, object] = {
            "prefix": fill(self.prefix, properties, safe=""),
            "auth": self.credential_kinds[kind].auth or self.auth,
        }
        if self.identity is not None:
            path = fill(self.identity.path, properties, safe="")
            bound["identity"] = self.identity.model_copy(update={"path": path})
        return self.model_copy(update=bound)

    def collection(self, collection_id: str) -> Collection | None:
        """The collection an id such as `provider:name` stands for."""
        provider, _, name = collection_id.partition(":")
        if provider != self.name:
            return None
        if name in self.collections or self.others is None:
            return self.collections.get(name)
        return self.others.named(name)

    def get(self, collection_id: str) -> Collection:
        """The collection of an id that was checked before."""
        collection = self.collection(collection_id)
        if collection is None:
            raise LookupError(f"{self.name} has no collection {collection_id}")
        return collection

    def shifts(self, collection_id: str) -> bool:
        """Whether a whole pass may miss what is there: its pages, or its parents', are numbered."""
        collection: Collection | None = self.get(collection_id)
        while collection is not None and not collection.paging.shifts:
            collection = self.collections[collection.parent.collection] if collection.parent else None
        return collection is not None

    def changes_of(self, collection_id: str) -> UpdatedSince | EventFeed | None:
        """How that collection's changes can be seen without reading all of it."""
        collection = self.collection(collection_id)
        if collection is not None and "changes" in collection.model_fields_set:
            return collection.changes
        return self.changes

    def narrowed(self, collection_id: str, changes: UpdatedSince, since: datetime) -> "Provider":
        """The same provider, where that collection's list holds only what changed since a moment."""
        return self._with(collection_id, self.get(collection_id).narrowed(changes, since))

    def swept(self, collection_id: str, gone: Gone, since: datetime) -> "Provider":
        """The same provider, where that collection's list names what is gone since a moment."""
        return self._with(collection_id, self.get(collection_id).swept(gone, since))

    def _with(self, collection_id: str, collection: Collection) -> "Provider":
        name = collection_id.partition(":")[2]
        return self.model_copy(update={"collections": {**self.collections, name: collection}})

    def root(self, properties: Mapping[str, JsonValue]) -> str:
        """Where a credential's requests go; raises `ForbiddenUrlError` when that is not the provider."""
        check_segments(self.prefix, properties)
        return resolve(self.base_url, self.hosts, properties)

    def carrying(self, token: str) -> dict[str, str]:
        """The headers of a request."""
        return {**self.headers, **self.auth.headers(token)}


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
    changes["credential_kinds"] = {
        name: kind.model_copy(update={"grant": _redirected(kind.grant, override)})
        for name, kind in provider.credential_kinds.items()
    }
    return provider.model_copy(update=changes)


def _redirected(grant: Grant, override: ProviderOverrides) -> Grant:
    """Tokens are refreshed where the installation says, or else where it has everything else."""
    if not isinstance(grant, Exchanged):
        return grant
    if override.token_url is not None:
        return grant.model_copy(update={"token_url": override.token_url})
    if override.base_url is not None:
        return grant.model_copy(update={"token_url": path_of(grant.token_url)})
    return grant
