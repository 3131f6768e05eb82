"""What the rival asks of the Management API."""

import json
import threading
from typing import Final

from benchmarks.rival.client import call
from benchmarks.rival.settings import COLLECTIONS
from benchmarks.rival.store import Row

STREAM: Final = "customers"
MARKER: Final = "rival_connection_id"
_stream_ids: dict[str, str] = {}
_one_at_a_time = threading.Lock()


def import_credential(row: Row) -> str:
    properties = {"kind": f"{row.provider}_key", "name": row.name, "secret": row.secret, "test": True}
    return str(call("POST", "/v1/credentials", {"properties": properties})["id"])


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
    return str(call("POST", "/v1/syncs", body)["id"])


def find_sync(row: Row) -> str | None:
    """The sync that an earlier try has made, if it has."""
    found = call("GET", "/v1/syncs", fields={"metadata": json.dumps({MARKER: row.id})})["data"]
    return str(found[0]["id"]) if found else None


def is_complete(sync_id: str) -> bool:
    sync = call("GET", f"/v1/syncs/{sync_id}")
    return sync["health"]["status"] == "healthy" and sync["initial_backfill_completed_at"] is not None


def stream_id(slug: str) -> str:
    """The id of a stream, which is created if there is none; asked for once in a process."""
    with _one_at_a_time:
        if slug not in _stream_ids:
            _stream_ids[slug] = _found(slug) or _created(slug)
        return _stream_ids[slug]


def _found(slug: str) -> str | None:
    streams = call("GET", "/v1/streams")["data"]
    return next((str(stream["id"]) for stream in streams if stream["slug"] == slug), None)


def _created(slug: str) -> str:
    return str(call("POST", "/v1/streams", {"slug": slug})["id"])
