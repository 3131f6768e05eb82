"""What the double remembers: streams, credentials, syncs and their backfills."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from .changes import Changes
from .validation import SECRETS, JsonObject

ACCOUNT_FIELDS: Final = (
    "airtable_uid",
    "hub_id",
    "installation_id",
    "linear_org_id",
    "instance_url",
    "login_id",
    *SECRETS,
)
WRONG: Final = "wrong"


@dataclass(slots=True)
class Stream:
    """Where syncs write to."""

    slug: str
    created_at: float
    updated_at: float
    id: str = field(default_factory=lambda: str(uuid4()))


@dataclass(slots=True)
class Credential:
    """Access to one upstream account."""

    provider: str
    properties: JsonObject
    created_at: float
    updated_at: float
    name: str | None = None
    oauth_app_id: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    is_refused: bool = False
    """The provider refuses it for reasons of its own."""
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def is_wrong(self) -> bool:
        """Whether the provider would refuse this credential."""
        return self.is_refused or any(
            str(self.properties.get(name, "")).startswith(WRONG) for name in SECRETS
        )


@dataclass(slots=True)
class Backfill:
    """A backfill as a clock: it runs while it may and is complete when its time is used up."""

    remaining_s: float
    running_since: float | None = None

    def completed_at(self, now: float) -> float | None:
        """Return when the backfill became complete, if it has."""
        if self.running_since is None:
            return None
        end = self.running_since + self.remaining_s
        return end if end <= now else None

    def run(self, *, may_run: bool, now: float) -> None:
        """Let the clock run or stop it; a complete backfill stays complete."""
        if may_run and self.running_since is None:
            self.running_since = now
        elif not may_run and self.running_since is not None and self.completed_at(now) is None:
            self.remaining_s -= now - self.running_since
            self.running_since = None


@dataclass(slots=True)
class Sync:
    """A connection to an API."""

    provider: str
    stream_id: str
    name: str
    collection_ids: list[str]
    rate_limit: JsonObject | None
    credential: Credential
    backfill: Backfill
    created_at: float
    updated_at: float
    max_age_days: int | None = None
    sync_frequency: str = "continuous"
    metadata: JsonObject = field(default_factory=dict)
    external_id: str | None = None
    status: str = "active"
    forced_health: str | None = None
    id: str = field(default_factory=lambda: str(uuid4()))

    def settle(self, now: float) -> None:
        """Let the backfill run exactly if the sync is active and its credential is good."""
        may_run = self.status == "active" and not self.credential.is_wrong
        self.backfill.run(may_run=may_run, now=now)


class Syncs:
    """All syncs, oldest first, and an index of their metadata."""

    def __init__(self) -> None:
        self._by_id: dict[str, Sync] = {}
        self._index: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._peaks: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.changes = Changes()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Sync]:
        return iter(self._by_id.values())

    def get(self, sync_id: str) -> Sync | None:
        """Return one sync."""
        return self._by_id.get(sync_id)

    def add(self, sync: Sync) -> None:
        """Remember a sync."""
        self._by_id[sync.id] = sync
        self._enter(sync)
        self.touch(sync, sync.created_at)

    def touch(self, sync: Sync, now: float) -> None:
        """Note that a sync looks different now, and when it will by itself."""
        self.changes.note(sync.id)
        if sync.backfill.running_since is not None and sync.backfill.completed_at(now) is None:
            self.changes.expect(sync.id, sync.backfill.running_since + sync.backfill.remaining_s)

    def remove(self, sync: Sync) -> None:
        """Forget a sync."""
        del self._by_id[sync.id]
        self._leave(sync)
        self.changes.note_deleted(sync.id)

    def replace_metadata(self, sync: Sync, metadata: JsonObject) -> None:
        """Give a sync other metadata."""
        self._leave(sync)
        sync.metadata = metadata
        self._enter(sync)

    def with_metadata(self, wanted: JsonObject) -> Iterable[Sync]:
        """Return the syncs whose metadata contains everything wanted, oldest first."""
        if not wanted:
            return self
        found = [self._index[key][label] for key, label in scalars(wanted)]
        candidates = self if not found else self._oldest_first(set.intersection(*found))
        return [sync for sync in candidates if contains(sync.metadata, wanted)]

    def count_by(self, key: str) -> dict[str, int]:
        """Count the present syncs per value of a metadata key."""
        return {plain(label): len(ids) for label, ids in self._index[key].items() if ids}

    def peak_by(self, key: str) -> dict[str, int]:
        """Return how many syncs ever existed at the same time, per value of a metadata key."""
        return {plain(label): peak for label, peak in self._peaks[key].items()}

    def _oldest_first(self, ids: set[str]) -> list[Sync]:
        return sorted((self._by_id[id_] for id_ in ids), key=lambda sync: sync.created_at)

    def _enter(self, sync: Sync) -> None:
        for key, label in scalars(sync.metadata):
            ids = self._index[key][label]
            ids.add(sync.id)
            self._peaks[key][label] = max(self._peaks[key][label], len(ids))

    def _leave(self, sync: Sync) -> None:
        for key, label in scalars(sync.metadata):
            self._index[key][label].discard(sync.id)


class Store:
    """Everything one account has."""

    def __init__(self) -> None:
        self.org_id: Final = str(uuid4())
        self.streams: dict[str, Stream] = {}
        self.credentials: dict[str, Credential] = {}
        self.syncs = Syncs()
        self._by_identity: dict[tuple[str, str], Credential] = {}

    def credential_of(self, properties: JsonObject) -> Credential | None:
        """Return the credential already known for an upstream account."""
        return self._by_identity.get(identity(properties))

    def add_credential(self, credential: Credential) -> None:
        """Remember a credential under its upstream account."""
        self.credentials[credential.id] = credential
        self._by_identity[identity(credential.properties)] = credential

    def remove_credential(self, credential: Credential) -> None:
        """Forget a credential."""
        del self.credentials[credential.id]
        del self._by_identity[identity(credential.properties)]

    def stream_named(self, slug: str) -> Stream | None:
        """Return the stream with a slug."""
        return next((stream for stream in self.streams.values() if stream.slug == slug), None)

    def syncs_of(self, credential: Credential) -> list[Sync]:
        """Return the syncs that use a credential."""
        return [sync for sync in self.syncs if sync.credential is credential]


def assign(resource: Stream | Credential | Sync, changes: JsonObject, now: float) -> None:
    """Set what a body names and stamp the change."""
    for name, value in changes.items():
        setattr(resource, name, value)
    resource.updated_at = now


def identity(properties: JsonObject) -> tuple[str, str]:
    """Return what makes two imports the same account: the kind and the account, or else the secret."""
    account = next(([name, properties[name]] for name in ACCOUNT_FIELDS if properties.get(name)), properties)
    return properties["kind"], json.dumps(account)


def contains(actual: object, wanted: object) -> bool:
    """Tell whether a JSON value has every property of another."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(
            key in actual and contains(actual[key], value) for key, value in wanted.items()
        )
    return type(actual) is type(wanted) and actual == wanted


def scalars(metadata: JsonObject) -> list[tuple[str, str]]:
    """Return key and JSON text of the properties that an index can find."""
    return [(key, json.dumps(value)) for key, value in metadata.items() if not isinstance(value, dict | list)]


def plain(label: str) -> str:
    """Return a value's text, strings without their quotes."""
    value = json.loads(label)
    return value if isinstance(value, str) else label
