"""A Management API in memory, behind httpx: obliging, countable, and able to misbehave on request."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

Interfere = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class Remote:
    """Keeps what it is sent. `before` may answer or raise instead; `after` does so once the work is done."""

    credentials: dict[str, dict[str, Any]] = field(default_factory=dict)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    syncs: dict[str, dict[str, Any]] = field(default_factory=dict)
    has_feed: bool = False
    """Whether it tells with `changed_since` which syncs have changed."""
    page_size: int | None = None
    """Without one, lists come whole."""
    requests: list[httpx.Request] = field(default_factory=list)
    before: Interfere = lambda _request: None
    after: Interfere = lambda _request: None
    _changed: dict[str, int] = field(default_factory=dict)
    _deleted: dict[str, int] = field(default_factory=dict)
    _changes: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            return self.before(request) or self._obeyed(request)

    def called(self) -> list[str]:
        """Method and path of every request, in order."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def count(self, call: str) -> int:
        return sum(each.startswith(call) for each in self.called())

    def body(self, call: str) -> Any:
        """The body of the last such request."""
        wanted = [r for r in self.requests if f"{r.method} {r.url.path}".startswith(call)]
        return json.loads(wanted[-1].content)

    def add_sync(self, **values: Any) -> dict[str, Any]:
        sync = {
            "id": str(uuid4()),
            "provider": "stripe",
            "stream_id": "stream_1",
            "name": "sync",
            "status": "active",
            "health": {"status": "initializing"},
            "collection_ids": [],
            "rate_limit": None,
            "credential_id": "cred_1",
            "max_age_days": None,
            "sync_frequency": "continuous",
            "initial_backfill_completed_at": None,
            "metadata": {},
            "created_at": f"2026-01-01T00:00:{len(self.syncs):02}Z",
        } | values
        self.syncs[sync["id"]] = sync
        self.touch(sync["id"])
        return sync

    def change(self, sync_id: object, **values: Any) -> None:
        """Something happens to a sync."""
        self.syncs[str(sync_id)] |= values
        self.touch(str(sync_id))

    def remove(self, sync_id: object) -> None:
        """Somebody else deletes a sync."""
        del self.syncs[str(sync_id)]
        self._changes += 1
        self._deleted[str(sync_id)] = self._changes

    def touch(self, sync_id: str) -> None:
        self._changes += 1
        self._changed[sync_id] = self._changes

    def complete(self) -> None:
        """Every backfill ends well."""
        for sync_id in self.syncs:
            self.change(
                sync_id,
                health={"status": "healthy"},
                initial_backfill_completed_at="2026-01-02T00:00:00Z",
            )

    def _obeyed(self, request: httpx.Request) -> httpx.Response:
        done = self._route(request)
        return self.after(request) or done

    def _route(self, request: httpx.Request) -> httpx.Response:
        _, version, collection, *rest = request.url.path.split("/")
        assert version == "v1"
        kept: dict[str, dict[str, Any]] = getattr(self, collection)
        body = json.loads(request.content) if request.content else {}
        if not rest:
            return self._list(request, kept) if request.method == "GET" else self._create(collection, body)
        found = kept.get(rest[0])
        if found is None:
            return httpx.Response(404, json={"summary": f"Not found: no {collection} with that id"})
        if request.method == "DELETE":
            if collection == "syncs":
                self.remove(rest[0])
            else:
                del kept[rest[0]]
            return httpx.Response(204)
        if request.method == "PATCH":
            self.change(rest[0], **body)
        return httpx.Response(200, json=found)

    def _list(self, request: httpx.Request, kept: dict[str, dict[str, Any]]) -> httpx.Response:
        params = request.url.params
        if self.has_feed and "changed_since" in params:
            return self._feed(params["changed_since"], int(params["limit"]))
        items = list(kept.values())
        if (stream := params.get("stream_id")) is not None:
            items = [item for item in items if item["stream_id"] == stream]
        if (text := params.get("metadata")) is not None:
            part = json.loads(text).items()
            items = [item for item in items if part <= item.get("metadata", {}).items()]
        if self.page_size is None:
            return httpx.Response(200, json={"data": items})
        begin = int(params.get("cursor", "0"))
        end = begin + min(self.page_size, int(params.get("limit", self.page_size)))
        following = str(end) if end < len(items) else None
        return httpx.Response(200, json={"data": items[begin:end], "next_cursor": following})

    def _feed(self, cursor: str, limit: int) -> httpx.Response:
        """What has changed since, in the order of the changes; from the beginning only what is there."""
        since = int(cursor or "0")
        changed = {n: self.syncs[sync_id] for sync_id, n in self._changed.items() if sync_id in self.syncs}
        deleted = {
            n: {"id": sync_id, "deleted_at": "2026-01-02T00:00:00Z"}
            for sync_id, n in self._deleted.items()
            if cursor
        }
        news = sorted(
            ((n, item) for n, item in (changed | deleted).items() if n > since), key=lambda each: each[0]
        )
        page = news[: min(limit, self.page_size or limit)]
        following = page[-1][0] if page else max(since, 1)
        return httpx.Response(
            200,
            json={
                "data": [item for _, item in page],
                "next_cursor": str(following),
                "has_more": len(page) < len(news),
            },
        )

    def _create(self, collection: str, body: dict[str, Any]) -> httpx.Response:
        if collection == "syncs":
            return httpx.Response(200, json=self.add_sync(**body))
        created = {"id": f"{collection[:-1]}_{uuid4().hex[:8]}"} | body
        getattr(self, collection)[created["id"]] = created
        return httpx.Response(200, json=created)


def answers(status: int, body: Any = None, *, to: str = "", headers: Any = None) -> Interfere:
    """Answer so, to requests like `POST /v1/syncs` or to all."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if f"{request.method} {request.url.path}".startswith(to):
            return httpx.Response(status, json=body if body is not None else {}, headers=headers)
        return None

    return answer


def breaks(exc: type[httpx.TransportError], *, to: str = "") -> Interfere:
    """Break the connection so."""

    def broken(request: httpx.Request) -> httpx.Response | None:
        if f"{request.method} {request.url.path}".startswith(to):
            raise exc("broken", request=request)
        return None

    return broken


async def at_once() -> None:
    """What a create does before it is sent, where that is of no interest."""
