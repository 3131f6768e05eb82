"""The operator's view below /_double/: what happened so far, and levers to make things happen."""

import json
import time
from collections.abc import Callable
from typing import Final

from .bodies import read_body
from .errors import ApiError, invalid, not_found
from .faults import Dice
from .store import Backfill, Credential, Store, Stream, Sync
from .tally import Tally
from .validation import FILL, JsonObject, require
from .wire import Request, Response

PREFIX: Final = "/_double/"


class OperatorView:
    """Answers requests below /_double/, which need no token."""

    def __init__(self, store: Store, dice: Dice, tally: Tally) -> None:
        self._store = store
        self._dice = dice
        self._tally = tally
        self._handlers: dict[str, Callable[[Request], JsonObject]] = {
            "GET stats": self._stats,
            "GET log": self._log,
            "POST faults": self._set_faults,
            "POST expire": self._expire,
            "POST health": self._set_health,
            "POST refuse": self._refuse,
            "POST fill": self._fill,
        }

    def handle(self, request: Request) -> Response:
        """Answer an operator, or raise what is wrong."""
        handler = self._handlers.get(f"{request.method} {request.path.removeprefix(PREFIX)}")
        if handler is None:
            raise ApiError(404, "Not found: no such view")
        return Response(200, json.dumps(handler(request)).encode())

    def _stats(self, request: Request) -> JsonObject:
        query = request.query()
        stats: JsonObject = self._tally.counts() | {
            "streams": len(self._store.streams),
            "credentials": len(self._store.credentials),
            "syncs": len(self._store.syncs),
        }
        if "group_by" in query:
            stats |= self._groups(query["group_by"])
        if query.get("backfills") != "0":
            stats["backfills"] = self._backfills()
        return stats

    def _groups(self, key: str) -> JsonObject:
        present = self._store.syncs.count_by(key)
        return {
            "syncs_by": present,
            "max_syncs_by": self._store.syncs.peak_by(key),
            "syncs_without": len(self._store.syncs) - sum(present.values()),
        }

    def _backfills(self) -> list[JsonObject]:
        now = time.time()
        return [
            {
                "sync_id": sync.id,
                "external_id": sync.external_id,
                "created_at": sync.created_at,
                "completed_at": sync.backfill.completed_at(now),
            }
            for sync in self._store.syncs
        ]

    def _log(self, request: Request) -> JsonObject:
        limit = request.query().get("limit", "100")
        if not limit.isdecimal():
            raise ApiError(400, "The limit must be a whole number")
        return {"data": self._tally.last(int(limit))}

    def _set_faults(self, request: Request) -> JsonObject:
        self._dice.settings = self._dice.settings.changed(read_body(request))
        return self._dice.settings.as_json()

    def _expire(self, request: Request) -> JsonObject:
        sync = self._sync(read_body(request))
        self._store.syncs.remove(sync)
        return {"sync_id": sync.id, "expired": True}

    def _set_health(self, request: Request) -> JsonObject:
        body = read_body(request)
        sync, status = self._sync(body), body.get("status")
        if status is not None and not isinstance(status, str):
            raise invalid({"status": ["must be a string, or null to take it back"]})
        sync.forced_health = status
        self._store.syncs.touch(sync, time.time())
        return {"sync_id": sync.id, "status": status}

    def _refuse(self, request: Request) -> JsonObject:
        """Have the provider refuse every credential there is, or end that."""
        refused, now = read_body(request).get("refused"), time.time()
        if not isinstance(refused, bool):
            raise invalid({"refused": ["must be true or false"]})
        for credential in self._store.credentials.values():
            credential.is_refused, credential.updated_at = refused, now
        for sync in self._store.syncs:
            sync.settle(now)
            self._store.syncs.touch(sync, now)
        return {"refused": refused}

    def _fill(self, request: Request) -> JsonObject:
        """Add many syncs whose backfills are complete; each item names what a test wants to know of it."""
        body = read_body(request)
        require(body, FILL)
        stream = self._store.stream_named(body["stream"]) or self._add_stream(body["stream"])
        for item in body["syncs"]:
            self._store.syncs.add(complete_sync(self._store, stream, item))
        return {"stream_id": stream.id, "syncs": len(self._store.syncs)}

    def _add_stream(self, slug: str) -> Stream:
        now = time.time()
        stream = Stream(slug, created_at=now, updated_at=now)
        self._store.streams[stream.id] = stream
        return stream

    def _sync(self, body: JsonObject) -> Sync:
        sync = self._store.syncs.get(str(body.get("sync_id")))
        if sync is None:
            raise not_found("sync")
        return sync


def complete_sync(store: Store, stream: Stream, item: JsonObject) -> Sync:
    """Make a healthy sync with a credential of its own, as if it had been here for long."""
    now = time.time()
    properties = {"kind": "stripe_key", "secret": f"sk_test_{item['credential_id']}"}
    credential = Credential("stripe", properties, created_at=now, updated_at=now, id=item["credential_id"])
    store.add_credential(credential)
    return Sync(
        provider="stripe",
        stream_id=stream.id,
        name=item["name"],
        collection_ids=item["collection_ids"],
        rate_limit=None,
        credential=credential,
        backfill=Backfill(remaining_s=0.0, running_since=now),
        created_at=now,
        updated_at=now,
        metadata=item["metadata"],
        external_id=item["external_id"],
        id=item["id"],
    )
