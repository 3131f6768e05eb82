"""The endpoints of syncs."""

import time
from collections.abc import Callable
from typing import Final

from .answers import Answers, Handler
from .bodies import metadata_filter, read_body
from .credentials import provider_errors, upsert
from .errors import FieldErrors, Reasons, invalid, not_found
from .store import Backfill, Credential, Store, Sync, assign
from .validation import SYNC, SYNC_IMMUTABLE, SYNC_UPDATE, JsonObject, field_errors
from .views import NEW_WORDS, Views
from .wire import Request, Response

DEFAULT_RATE_LIMITS: Final[dict[str, tuple[int, int] | None]] = {
    "stripe": (50, 1),
    "airtable": (3, 1),
    "salesforce": (28_800, 86_400),
    "hubspot": None,
    "github": None,
}
OTHER_RATE_LIMIT: Final = (5, 1)
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000


class SyncEndpoints:
    """Syncs begin their backfill when they are created."""

    def __init__(
        self,
        store: Store,
        views: Views,
        answers: Answers,
        next_backfill_s: Callable[[], float],
        *,
        has_feed: bool,
    ) -> None:
        self._store = store
        self._views = views
        self._answers = answers
        self._next_backfill_s = next_backfill_s
        self._has_feed = has_feed

    def handlers(self) -> dict[str, Handler]:
        """Name the routes."""
        return {
            "POST /v1/syncs": self._create_sync,
            "GET /v1/syncs": self._list_syncs,
            "GET /v1/syncs/{id}": self._get_sync,
            "PATCH /v1/syncs/{id}": self._update_sync,
            "DELETE /v1/syncs/{id}": self._delete_sync,
        }

    def _create_sync(self, request: Request, _: str) -> Response:
        body = read_body(request)
        if errors := self._sync_errors(body):
            raise invalid(errors)
        inline = body.pop("credential", None)
        id_ = body.pop("credential_id", "").lower()
        credential = self._store.credentials[id_] if inline is None else upsert(self._store, inline)
        sync = self._new_sync(body, credential)
        self._store.syncs.add(sync)
        return self._answers.created(self._views.encode_sync(sync, sync.created_at))

    def _new_sync(self, body: JsonObject, credential: Credential) -> Sync:
        now = time.time()
        backfill = Backfill(self._next_backfill_s())
        body["rate_limit"] = rate_limit(body["provider"], body.get("rate_limit"))
        body["stream_id"] = body["stream_id"].lower()
        sync = Sync(credential=credential, backfill=backfill, created_at=now, updated_at=now, **body)
        sync.settle(now)
        return sync

    def _list_syncs(self, request: Request, _: str) -> Response:
        query = request.query()
        now = time.time()
        if self._has_feed and "changed_since" in query:
            return self._list_changes(query, now)
        return self._answers.listed(
            self._views.encode_sync(sync, now)
            for sync in self._store.syncs.with_metadata(metadata_filter(query))
            if self._is_wanted(sync, query, now)
        )

    def _list_changes(self, query: dict[str, str], now: float) -> Response:
        cursor = number_in(query, "changed_since", default=0)
        if not self._store.syncs.changes.knows(cursor):
            raise invalid({"changed_since": ["is no cursor of this list"]})
        limit = min(number_in(query, "limit", default=DEFAULT_LIMIT), MAX_LIMIT)
        if limit == 0:
            raise invalid({"limit": ["must be at least 1"]})
        ids, after, has_more = self._store.syncs.changes.since(cursor, limit, now)
        bodies = [self._changed(id_, now) for id_ in ids]
        return self._answers.page(bodies, str(after), has_more=has_more)

    def _changed(self, id_: str, now: float) -> bytes:
        sync = self._store.syncs.get(id_)
        if sync is not None:
            return self._views.encode_sync(sync, now)
        return self._views.encode_deleted(id_, self._store.syncs.changes.deleted_at(id_) or now)

    def _get_sync(self, _request: Request, id_: str) -> Response:
        return self._answers.found(self._views.encode_sync(self._sync(id_), time.time()))

    def _update_sync(self, request: Request, id_: str) -> Response:
        sync = self._sync(id_)
        body = read_body(request)
        errors = field_errors(body, SYNC_UPDATE)
        errors |= {name: ["cannot be changed"] for name in body if name in SYNC_IMMUTABLE}
        errors = errors or collection_errors(body.get("collection_ids", []), sync.provider)
        if errors:
            raise invalid(errors)
        if "metadata" in body:
            self._store.syncs.replace_metadata(sync, body.pop("metadata"))
        if "rate_limit" in body:
            body["rate_limit"] = rate_limit(sync.provider, body["rate_limit"])
        assign(sync, body, time.time())
        sync.settle(sync.updated_at)
        self._store.syncs.touch(sync, sync.updated_at)
        return self._answers.found(self._views.encode_sync(sync, sync.updated_at))

    def _delete_sync(self, _request: Request, id_: str) -> Response:
        sync = self._sync(id_)
        self._store.syncs.remove(sync)
        return self._answers.deleted(sync.id)

    def _sync(self, id_: str) -> Sync:
        if (sync := self._store.syncs.get(id_)) is None:
            raise not_found("sync")
        return sync

    def _sync_errors(self, body: JsonObject) -> FieldErrors:
        errors = field_errors(body, SYNC)
        if ("credential" in body) == ("credential_id" in body):
            errors["credential"] = ["exactly one of credential and credential_id is required"]
        if errors:
            return errors
        if body["stream_id"].lower() not in self._store.streams:
            errors["stream_id"] = ["does not exist"]
        return errors | collection_errors(body["collection_ids"], body["provider"]) | self._owner_errors(body)

    def _owner_errors(self, body: JsonObject) -> FieldErrors:
        if "credential" in body:
            errors = provider_errors(body["credential"], body["provider"])
            return {"credential": errors} if errors else {}
        credential = self._store.credentials.get(body["credential_id"].lower())
        if credential is None:
            return {"credential_id": ["does not exist"]}
        if credential.provider != body["provider"]:
            return {"credential_id": ["is of another provider"]}
        return {}

    def _is_wanted(self, sync: Sync, query: dict[str, str], now: float) -> bool:
        health = query.get("health.status")
        return (
            sync.provider == query.get("provider", sync.provider)
            and sync.stream_id == query.get("stream_id", sync.stream_id).lower()
            and sync.name == query.get("name", sync.name)
            and (health is None or self._views.health_status(sync, now) == NEW_WORDS.get(health, health))
        )


def number_in(query: dict[str, str], name: str, *, default: int) -> int:
    """Read a whole number that may be left out or empty."""
    text = query.get(name, "")
    if text and not (text.isascii() and text.isdecimal()):
        raise invalid({name: ["must be a whole number"]})
    return int(text) if text else default


def collection_errors(collection_ids: list[str], provider: str) -> FieldErrors:
    """Say which collections belong to another provider."""
    wrong = [id_ for id_ in collection_ids if id_.partition(":")[0] != provider]
    reasons: Reasons = [f"{id_!r} is not a collection of {provider}" for id_ in wrong]
    return {"collection_ids": reasons} if wrong else {}


def rate_limit(provider: str, given: JsonObject | None) -> JsonObject | None:
    """Complete a rate limit, or take the provider's."""
    if given is not None:
        return {"max_concurrent_requests": 0, **given}
    default = DEFAULT_RATE_LIMITS.get(provider, OTHER_RATE_LIMIT)
    if default is None:
        return None
    return {"allowed_requests": default[0], "interval": default[1], "max_concurrent_requests": 0}
