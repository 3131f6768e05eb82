"""One request to a provider: bounded in time and size, ending in a payload or a named failure."""

import json
import time
from collections.abc import Callable
from typing import Final

import httpx
from pydantic import JsonValue

from engine.backfill.verdict import Failure, judge, unreachable
from engine.providers.catalogue import Collection, Provider
from engine.providers.paging import Cursor
from foundation.database import utc_now

TIMEOUT: Final = httpx.Timeout(6.0, connect=3.0)
WHOLE_ANSWER_S: Final = 8.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024


class FetchError(Exception):
    """The request brought no page."""

    def __init__(self, failure: Failure, status: int | None = None) -> None:
        super().__init__(failure, status)
        self.failure = failure
        self.status = status


def new_client(connections: int, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """One per process; redirects are not followed, they would carry the token elsewhere."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.Client(transport=transport, timeout=TIMEOUT, limits=limits, follow_redirects=False)


def fetch(
    client: httpx.Client,
    provider: Provider,
    collection_id: str,
    token: str,
    cursor: Cursor | None,
    clock: Callable[[], float] = time.monotonic,
) -> JsonValue:
    """The payload of one page; raises `FetchError` for everything else."""
    collection = _collection(provider, collection_id)
    request = client.build_request(
        "GET",
        provider.base_url + collection.path,
        params={**collection.params, **provider.paging.params(cursor)},
        headers=provider.auth.headers(token),
    )
    give_up_at = clock() + WHOLE_ANSWER_S
    try:
        answer = client.send(request, stream=True)
        try:
            if not answer.is_success:
                failure = judge(provider.title, collection_id, answer.status_code, answer.headers, utc_now())
                raise FetchError(failure, answer.status_code)
            body = _read(answer, give_up_at, clock)
        finally:
            answer.close()
        return _parse(body)
    except httpx.HTTPError as exc:
        raise FetchError(unreachable(provider.title, type(exc).__name__)) from None
    except ValueError:
        raise FetchError(unreachable(provider.title, "not JSON")) from None


def _collection(provider: Provider, collection_id: str) -> Collection:
    collection = provider.collection(collection_id)
    if collection is None:
        raise LookupError(f"{provider.name} has no collection {collection_id}")
    return collection


def _read(answer: httpx.Response, give_up_at: float, clock: Callable[[], float]) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise httpx.ReadError("the answer is too large")
        if clock() > give_up_at:
            raise httpx.ReadTimeout("the answer takes too long")
    return bytes(body)


def _parse(body: bytes) -> JsonValue:
    value: JsonValue = json.loads(body, parse_constant=_refuse)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
