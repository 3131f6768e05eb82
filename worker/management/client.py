"""The two faces of the Management API: a blocking one for the steps, an async one for looking at many."""

import asyncio
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
import structlog
from pydantic import JsonValue

from worker.errors import NotFoundError, ProvisioningError
from worker.management import calls
from worker.management.calls import Body, Call
from worker.management.shapes import RemoteCredential, RemoteStream, RemoteSync

T = TypeVar("T")
M = TypeVar("M", RemoteCredential, RemoteSync)

TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
MAX_CONNECTIONS: Final = 20  # httpx's pool costs time quadratic in its waiting callers, so keep both few


class ManagementApi:
    """One method per operation. Raises the errors of `worker.errors`; retrying is the caller's business."""

    def __init__(self, base_url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers=_headers(token),
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            transport=transport,
        )

    def import_credential(self, body: Body) -> RemoteCredential:
        """Create the credential or refresh the one of the same upstream account (contract 6.1)."""
        return self._send(calls.import_credential(body))

    def get_credential(self, credential_id: str) -> RemoteCredential:
        return self._send(calls.get_credential(credential_id))

    def find_credentials(self, metadata: Mapping[str, JsonValue]) -> list[RemoteCredential]:
        """The credentials whose metadata contains these properties, whether the API filters or not."""
        return _containing(metadata, self._send(calls.list_credentials(metadata=metadata)))

    def delete_credential(self, credential_id: str) -> None:
        """Delete it; one that is already gone is as good as deleted."""
        with suppress(NotFoundError):
            self._send(calls.delete_credential(credential_id))

    def create_sync(self, body: Body, *, idempotency_key: str) -> RemoteSync:
        """Create a sync (contract 2.2). Not idempotent: see `worker.steps.create`."""
        return self._send(calls.create_sync(body, idempotency_key=idempotency_key))

    def get_sync(self, sync_id: str) -> RemoteSync:
        return self._send(calls.get_sync(sync_id))

    def find_syncs(self, metadata: Mapping[str, JsonValue]) -> list[RemoteSync]:
        """The syncs whose metadata contains these properties, whether the API filters or not."""
        return _containing(metadata, self._send(calls.list_syncs(metadata=metadata)))

    def update_sync(self, sync_id: str, changes: Body) -> RemoteSync:
        return self._send(calls.update_sync(sync_id, changes))

    def delete_sync(self, sync_id: str) -> None:
        """Delete it; one that is already gone is as good as deleted."""
        with suppress(NotFoundError):
            self._send(calls.delete_sync(sync_id))

    def list_streams(self) -> list[RemoteStream]:
        return self._send(calls.list_streams())

    def create_stream(self, slug: str) -> RemoteStream:
        return self._send(calls.create_stream(slug))

    def _send(self, call: Call[T]) -> T:
        try:
            response = self._http.request(
                call.method, call.path, json=call.body, params=call.params, headers=_with_request_id(call)
            )
        except httpx.RequestError as exc:
            raise calls.failure(call, exc) from exc
        return calls.answer(call, response)

    def close(self) -> None:
        self._http.close()


class AsyncManagementApi:
    """The reads that polling needs, many at once over few connections."""

    def __init__(
        self, base_url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers=_headers(token),
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            transport=transport,
        )
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def get_syncs(self, sync_ids: Iterable[str]) -> dict[str, RemoteSync | ProvisioningError]:
        """Each sync, or the error that kept us from it."""
        wanted = list(dict.fromkeys(sync_ids))
        found = await asyncio.gather(*(self._get_sync(sync_id) for sync_id in wanted))
        return dict(zip(wanted, found, strict=True))

    async def list_syncs(self, *, stream_id: str, only: Set[str]) -> dict[str, RemoteSync]:
        """Those of these syncs that one stream lists, by id."""
        return {sync.id: sync for sync in await self._send(calls.list_syncs(stream_id=stream_id, only=only))}

    async def _get_sync(self, sync_id: str) -> RemoteSync | ProvisioningError:
        try:
            return await self._send(calls.get_sync(sync_id))
        except ProvisioningError as exc:
            return exc

    async def _send(self, call: Call[T]) -> T:
        async with self._slots:
            try:
                response = await self._http.request(
                    call.method, call.path, json=call.body, params=call.params, headers=_with_request_id(call)
                )
            except httpx.RequestError as exc:
                raise calls.failure(call, exc) from exc
        return calls.answer(call, response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()


def _containing(metadata: Mapping[str, JsonValue], found: list[M]) -> list[M]:
    """The filter is asked for, and not trusted: an API that ignores it lists everything."""
    return [each for each in found if metadata.items() <= each.metadata.items()]


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": "gangway"}


def _with_request_id(call: Call[T]) -> dict[str, str]:
    """The correlation id that the log lines carry travels to the API too."""
    correlation_id = structlog.contextvars.get_contextvars().get("correlation_id")
    return {**call.headers, **({"X-Request-Id": str(correlation_id)} if correlation_id else {})}
