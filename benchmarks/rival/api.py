"""The calls to the Management API, over urllib3's pool: the fastest of the usual clients for threads."""

import json
import threading
from typing import Any, Final

import urllib3

from benchmarks.rival.settings import API_TOKEN, API_URL, COLLECTIONS
from benchmarks.rival.store import Row

STREAM: Final = "customers"
MARKER: Final = "rival_connection_id"
_HEADERS: Final = {"authorization": f"Bearer {API_TOKEN}", "content-type": "application/json"}
_pool = urllib3.connection_from_url(
    API_URL, maxsize=64, headers=_HEADERS, retries=False, timeout=urllib3.Timeout(10.0, connect=3.0)
)
_stream_ids: dict[str, str] = {}
_one_at_a_time = threading.Lock()


class ApiError(Exception):
    """An answer that is no success; dramatiq tries again."""


def import_credential(row: Row) -> str:
    properties = {"kind": f"{row.provider}_key", "name": row.name, "secret": row.secret, "test": True}
    return str(_call("POST", "/v1/credentials", {"properties": properties})["id"])


def create_sync(row: Row) -> str:
    body = {
        "provider": row.provider,
        "stream_id": stream_id(STREAM),
        "name": row.name,
        "collection_ids": COLLECTIONS,
        "credential_id": row.remote_credential_id,
        "sync_frequency": "continuous",
        "metadata": {MARKER: row.id},
        "external_id": row.external_id,
    }
    return str(_call("POST", "/v1/syncs", body)["id"])


def find_sync(row: Row) -> str | None:
    """The sync that an earlier try has made, if it has."""
    found = _call("GET", "/v1/syncs", fields={"metadata": json.dumps({MARKER: row.id})})["data"]
    return str(found[0]["id"]) if found else None


def is_complete(sync_id: str) -> bool:
    sync = _call("GET", f"/v1/syncs/{sync_id}")
    return sync["health"]["status"] == "healthy" and sync["initial_backfill_completed_at"] is not None


def stream_id(slug: str) -> str:
    """The id of a stream, which is created if there is none; asked for once in a process."""
    with _one_at_a_time:
        if slug not in _stream_ids:
            _stream_ids[slug] = _found(slug) or _created(slug)
        return _stream_ids[slug]


def _found(slug: str) -> str | None:
    streams = _call("GET", "/v1/streams")["data"]
    return next((str(stream["id"]) for stream in streams if stream["slug"] == slug), None)


def _created(slug: str) -> str:
    return str(_call("POST", "/v1/streams", {"slug": slug})["id"])


def _call(method: str, path: str, body: object = None, fields: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body)
    answer = _pool.request(method, path, body=data, fields=fields)
    if answer.status >= 300:
        raise ApiError(f"{method} {path}: {answer.status}")
    return json.loads(answer.data)
