"""How resources look on the wire, in the dialects that a client of this API may meet."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .store import Credential, Store, Stream, Sync
from .validation import SECRETS, JsonObject

MASK: Final = "***********"
UNKNOWN: Final = {"x_future": {"note": "a field from a later release", "items": [1, None]}}
CALLERS_OWN: Final = frozenset({"metadata", "validation_errors"})
OLD_WORDS: Final = {"healthy": "ok", "warning": "warn", "initializing": "warn"}
NEW_WORDS: Final = {"ok": "healthy", "warn": "warning"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which of the documented forms the answers take."""

    timestamps: str = "rfc3339"
    health: str = "initializing"
    has_extra_fields: bool = False


class Views:
    """Turns what is stored into what is sent."""

    def __init__(self, dialect: Dialect, store: Store) -> None:
        self._dialect = dialect
        self._store = store
        self._encoded_syncs: dict[str, tuple[object, bytes]] = {}

    def encode(self, value: JsonObject) -> bytes:
        """Write an object as JSON."""
        return json.dumps(with_unknown(value) if self._dialect.has_extra_fields else value).encode()

    def encode_list(self, items: list[bytes]) -> bytes:
        """Write objects that are JSON already as a list answer."""
        tail = b"," + json.dumps(UNKNOWN).encode()[1:] if self._dialect.has_extra_fields else b"}"
        return b'{"data": [' + b", ".join(items) + b"]" + tail

    def encode_page(self, items: list[bytes], next_cursor: str, *, has_more: bool) -> bytes:
        """Write objects that are JSON already as a part of a list."""
        tail = self.encode({"next_cursor": next_cursor, "has_more": has_more})
        return b'{"data": [' + b", ".join(items) + b"], " + tail[1:]

    def encode_deleted(self, id_: str, at: float) -> bytes:
        """Write what is left of a sync that is gone."""
        return self.encode({"id": id_, "deleted_at": self._time(at)})

    def encode_stream(self, stream: Stream) -> bytes:
        """Write a stream as JSON."""
        own = {"id": stream.id, "slug": stream.slug, "org_id": self._store.org_id}
        return self.encode({**own, **self._stamps(stream)})

    def encode_credential(self, credential: Credential) -> bytes:
        """Write a credential as JSON, with what only shows when it stands by itself."""
        own = {
            "kind": credential.properties["kind"],
            "name": credential.name,
            "health": self._credential_health(credential),
        }
        return self.encode({**self._embedded(credential), **own})

    def encode_sync(self, sync: Sync, now: float) -> bytes:
        """Write a sync as JSON, again only if it looks different than before."""
        is_complete = sync.backfill.completed_at(now) is not None
        looks = is_complete, sync.forced_health, sync.updated_at, sync.credential.updated_at
        known = self._encoded_syncs.get(sync.id)
        if known is None or known[0] != looks:
            known = self._encoded_syncs[sync.id] = looks, self.encode(self._sync(sync, now))
        return known[1]

    def _sync(self, sync: Sync, now: float) -> JsonObject:
        completed_at = sync.backfill.completed_at(now)
        return {
            "id": sync.id,
            "provider": sync.provider,
            "stream_id": sync.stream_id,
            "name": sync.name,
            "status": sync.status,
            "org_id": self._store.org_id,
            "health": self._health(sync, now),
            "collection_ids": sync.collection_ids,
            "rate_limit": sync.rate_limit,
            "credential_id": sync.credential.id,
            "credential": self._embedded(sync.credential),
            "max_age_days": sync.max_age_days,
            "sync_frequency": sync.sync_frequency,
            "initial_backfill_completed_at": None if completed_at is None else self._time(completed_at),
            "metadata": sync.metadata,
            "external_id": sync.external_id,
            **self._stamps(sync),
        }

    def health_status(self, sync: Sync, now: float) -> str:
        """Say how a sync is doing, in the newer vocabulary."""
        if sync.forced_health is not None:
            return NEW_WORDS.get(sync.forced_health, sync.forced_health)
        if sync.credential.is_wrong:
            return "error"
        if sync.backfill.completed_at(now) is None and self._dialect.health != "gen2":
            return "initializing"
        return "healthy"

    def _health(self, sync: Sync, now: float) -> JsonObject:
        status = self.health_status(sync, now)
        if self._dialect.health != "gen1":
            return {"status": status, "sync_id": sync.id}
        return {
            "status": OLD_WORDS.get(status, status),
            "credential": self._credential_health(sync.credential),
            "provider": provider_health(sync, status),
        }

    def _credential_health(self, credential: Credential) -> JsonObject:
        notes = ["The provider refused this credential."] if credential.is_wrong else []
        status = "error" if credential.is_wrong else "ok"
        return {"status": status, "notes": notes, "time": self._time(credential.updated_at)}

    def _embedded(self, credential: Credential) -> JsonObject:
        app_id = credential.oauth_app_id
        return {
            "id": credential.id,
            "provider": credential.provider,
            "properties": masked(credential.properties),
            "oauth_app_id": app_id,
            "oauth_app": {"id": app_id, "provider": credential.provider} if app_id else {"kind": "sequin"},
            "metadata": credential.metadata,
            **self._stamps(credential),
        }

    def _stamps(self, resource: Stream | Credential | Sync) -> JsonObject:
        return {
            "created_at": self._time(resource.created_at),
            "updated_at": self._time(resource.updated_at),
        }

    def _time(self, epoch_s: float) -> str:
        instant = datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None)
        if self._dialect.timestamps == "space":
            return instant.isoformat(" ", "seconds")
        return instant.isoformat("T", "microseconds") + "Z"


def provider_health(sync: Sync, status: str) -> JsonObject:
    """Show the provider's part of a health object of the older form."""
    if status == "healthy" or (sync.credential.is_wrong and sync.forced_health is None):
        return {"status": "ok", "notes": []}
    return {"status": OLD_WORDS.get(status, status), "notes": [f"The sync is {status}."]}


def masked(properties: JsonObject) -> JsonObject:
    """Hide the secret values."""
    return {name: MASK if name in SECRETS else value for name, value in properties.items()}


def with_unknown(value: object) -> object:
    """Add fields nobody documented to every object that is not the caller's own."""
    if isinstance(value, list):
        return [with_unknown(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {name: item if name in CALLERS_OWN else with_unknown(item) for name, item in value.items()}
    return {**fields, **UNKNOWN}
