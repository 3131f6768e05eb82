"""The client of the Management API: one method per operation, many calls at once, each of them bounded."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Set
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import JsonValue

from worker.errors import (
    ApiRejectedError,
    ApiUnavailableError,
    NotFoundError,
    RateLimitedError,
    UnusableAnswerError,
)
from worker.management import calls
from worker.management.calls import Answer, Body, Call, ListPage
from worker.management.changes import ChangesPage
from worker.management.context import count_call, note_limit
from worker.management.shapes import RemoteCredential, RemoteStream, RemoteSync

T = TypeVar("T")
M = TypeVar("M", RemoteCredential, RemoteSync)
P = TypeVar("P", RemoteCredential, RemoteSync)

TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
_EXTENSIONS: Final[dict[str, Any]] = {"timeout": TIMEOUT.as_dict()}
DEADLINE_S: Final = 30.0
"""The longest that a call may take in all, however slowly its answer arrives."""
LARGEST_ANSWER: Final = 64 * 1024 * 1024
MAX_CALLS: Final = 40
"""Calls under way at once in one process."""
KEEP_IDLE_S: Final = 4.0  # shorter than servers keep idle connections, so that none is closed under a request
PAGE: Final = 1_000
CHANGES_PER_PAGE: Final = 200  # a page is judged and recorded in one transaction, and held in memory
MAX_PAGES: Final = 1_000

Before = Callable[[], Awaitable[None]]
Observe = Callable[[Answer], None]
"""Is shown every answer: its headers tell how many requests are left."""


async def _nothing_before() -> None:
    """Most requests need nothing to be done before they are sent."""


class ManagementApi:
    """Raises the errors of `worker.errors`; retrying is the caller's business. Lives in one event loop."""

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        observe: Observe = lambda _answer: None,
        deadline_s: float = DEADLINE_S,
        largest_answer: int = LARGEST_ANSWER,
    ) -> None:
        self._base_url = base_url
        self._headers = _headers(token)
        self._transport = transport or _transport(base_url)
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._observe = observe
        self._deadline_s = deadline_s
        self._largest_answer = largest_answer
        self._has_pages = True

    async def import_credential(self, body: Body) -> RemoteCredential:
        """Create the credential or refresh the one of the same upstream account (contract 6.1)."""
        return await self._send(calls.import_credential(body))

    async def get_credential(self, credential_id: str) -> RemoteCredential:
        return await self._send(calls.get_credential(credential_id))

    async def find_credentials(self, metadata: Mapping[str, JsonValue]) -> list[RemoteCredential]:
        """The credentials whose metadata contains these properties, whether the API filters or not."""
        pages = self._pages(lambda cursor: self._send(calls.list_credentials(metadata, cursor=cursor)))
        return [found async for page in pages for found in _containing(metadata, page.items)]

    async def delete_credential(self, credential_id: str) -> bool:
        """Delete it; false if the API does not know it."""
        return await self._delete(calls.delete_credential(credential_id))

    async def create_sync(self, body: Body, *, idempotency_key: str, before: Before) -> RemoteSync:
        """Create a sync (contract 2.2). Not idempotent: see `worker.steps.create`.

        `before` is awaited when the request's turn has come, directly before it is sent.
        """
        return await self._send(calls.create_sync(body, idempotency_key=idempotency_key), before)

    async def get_sync(self, sync_id: str) -> RemoteSync:
        return await self._send(calls.get_sync(sync_id))

    async def find_syncs(self, metadata: Mapping[str, JsonValue]) -> list[RemoteSync]:
        """The syncs whose metadata contains these properties, whether the API filters or not."""
        pages = self._pages(lambda cursor: self._send(calls.list_syncs(metadata=metadata, cursor=cursor)))
        return [found async for page in pages for found in _containing(metadata, page.items)]

    async def list_syncs(
        self, *, stream_id: str, only: Set[str], at_most: int
    ) -> tuple[dict[str, RemoteSync], int]:
        """Those of these syncs that a stream lists, by id, and how many syncs it lists, as far as was read.

        Reads pages where the API has them, until all are found or `at_most` syncs were read; and the whole
        list in one answer where the API has no pages.
        """
        found: dict[str, RemoteSync] = {}
        size = 0
        async for page in self._pages(lambda cursor: self._page(stream_id, only, cursor)):
            found.update({sync.id: sync for sync in page.items})
            size += page.size
            if len(found) == len(only):
                break
            if size >= at_most and page.next_cursor is not None:
                return found, size + 1  # there are more than these
        return found, size

    async def changed_syncs(self, cursor: str | None) -> ChangesPage | None:
        """One page of the feed of changed syncs; None if the API has no such feed.

        Raises `ApiRejectedError` with status 410 or 400 for a cursor that is too old or not known.
        """
        return await self._send(calls.changed_syncs(cursor, limit=CHANGES_PER_PAGE))

    async def update_sync(self, sync_id: str, changes: Body) -> RemoteSync:
        return await self._send(calls.update_sync(sync_id, changes))

    async def delete_sync(self, sync_id: str) -> bool:
        """Delete it; false if the API does not know it."""
        return await self._delete(calls.delete_sync(sync_id))

    async def list_streams(self) -> list[RemoteStream]:
        return await self._send(calls.list_streams())

    async def create_stream(self, slug: str) -> RemoteStream:
        return await self._send(calls.create_stream(slug))

    async def close(self) -> None:
        await self._transport.aclose()

    async def _pages(
        self, read: Callable[[str | None], Awaitable[ListPage[P]]]
    ) -> AsyncIterator[ListPage[P]]:
        """The pages of a list; an API without pages answers with the whole list at once."""
        cursor = None
        for _ in range(MAX_PAGES):
            page = await read(cursor)
            yield page
            if page.next_cursor is None or page.next_cursor == cursor:
                return
            cursor = page.next_cursor
        raise UnusableAnswerError("a list of the API does not end")

    async def _page(self, stream_id: str, only: Set[str], cursor: str | None) -> ListPage[RemoteSync]:
        """A page; an API that refuses to be asked for pages is asked for the whole list from then on."""
        limit = PAGE if self._has_pages else None
        try:
            return await self._send(
                calls.list_syncs(stream_id=stream_id, only=only, limit=limit, cursor=cursor)
            )
        except ApiRejectedError:
            if limit is None or cursor is not None:
                raise
        page = await self._send(calls.list_syncs(stream_id=stream_id, only=only))
        self._has_pages = False  # known only now: the refusal may have had another cause
        return page

    async def _delete(self, call: Call[None]) -> bool:
        try:
            await self._send(call)
        except NotFoundError:
            return False
        return True

    async def _send(self, call: Call[T], before: Before = _nothing_before) -> T:
        async with self._slots:
            await before()
            try:
                async with asyncio.timeout(self._deadline_s):
                    answer = await self._exchange(call)
            except TimeoutError:
                reason = f"no whole answer within {self._deadline_s:g} s"
                raise ApiUnavailableError(reason, may_have_happened=call.changes_something) from None
            except (httpx.RequestError, aiohttp.ClientError) as exc:
                raise calls.failure(call, exc) from exc
            self._observe(answer)
            try:
                return calls.result(call, answer)
            except RateLimitedError as exc:
                note_limit(exc)
                raise

    async def _exchange(self, call: Call[T]) -> Answer:
        """Straight to the transport: no redirects, no cookies, and a third of a client's cost per call."""
        response = await self._transport.handle_async_request(self._request(call))
        try:
            is_plain = "content-encoding" not in response.headers
            chunks = response.stream if is_plain else response.aiter_bytes()
            body = bytearray()
            async for chunk in cast("AsyncIterable[bytes]", chunks):
                body += chunk
                if len(body) > self._largest_answer:
                    raise calls.too_large(call, self._largest_answer)
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, bytes(body))

    def _request(self, call: Call[T]) -> httpx.Request:
        return httpx.Request(
            call.method,
            f"{self._base_url}{call.path}",
            params=call.params or None,
            headers=self._headers | call.headers | _request_id(),
            json=call.body,
            extensions=_EXTENSIONS,
        )


def _transport(base_url: str) -> AiohttpTransport:
    """Through the environment's proxy for this URL, if it names one.

    It is looked up once: left to aiohttp, every request would read the environment and a netrc file again.
    """
    url = urlsplit(base_url)
    proxy = None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)
    return AiohttpTransport(client=_session, proxy=httpx.Proxy(proxy) if proxy else None)


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=MAX_CALLS, keepalive_timeout=KEEP_IDLE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _containing(metadata: Mapping[str, JsonValue], found: list[M]) -> list[M]:
    """The filter is asked for, and not trusted: an API that ignores it lists everything."""
    return [each for each in found if metadata.items() <= each.metadata.items()]


def _headers(token: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "gangway",
    }


def _request_id() -> dict[str, str]:
    """The correlation id that the log lines carry travels to the API too."""
    correlation_id = count_call()
    return {"X-Request-Id": correlation_id} if correlation_id else {}
