"""The Management API's client over real sockets: every call is bounded, and a lost one is told apart."""

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from tests.support.remote import at_once
from worker.errors import ApiUnavailableError, RateLimitedError, TransientError, UnusableAnswerError
from worker.management import ManagementApi
from worker.management.client import MAX_CALLS

TOKEN = "canary-token-of-the-api"
T = TypeVar("T")
Serve = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Answers one request; the connection is kept if it leaves it open."""
Use = Callable[[ManagementApi], Coroutine[Any, Any, T]]


def over_sockets(serve: Serve, use: Use[T], **bounds: Any) -> T:
    """Use a client against a server that answers so."""

    async def both() -> T:
        async with _serving(serve) as port:
            api = ManagementApi(f"http://127.0.0.1:{port}", TOKEN, **bounds)
            try:
                return await use(api)
            finally:
                await api.close()

    return asyncio.run(asyncio.wait_for(both(), timeout=30))


@asynccontextmanager
async def _serving(serve: Serve) -> AsyncIterator[int]:
    under_way: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.add(asyncio.current_task())
        try:
            while not writer.is_closing():
                await serve(await _request(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*(task for task in under_way if task)), timeout=10)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b"")


def an_answer(body: bytes = b'{"id": "s"}', *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answering(answer: bytes) -> Serve:
    async def serve(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return serve


def create(api: ManagementApi) -> Coroutine[Any, Any, Any]:
    return api.create_sync({"a": 1}, idempotency_key="k", before=at_once)


def read(api: ManagementApi) -> Coroutine[Any, Any, Any]:
    return api.get_sync("s")


@pytest.mark.parametrize("dripping", [an_answer(b'{"id": "s"}'), b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100])
def test_dripping_answer_has_a_deadline(dripping: bytes) -> None:
    """An answer that comes byte by byte holds up no call for longer than the deadline for all of it."""

    async def drip(_request: bytes, writer: asyncio.StreamWriter) -> None:
        for byte in dripping:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    began = time.monotonic()

    with pytest.raises(ApiUnavailableError, match=r"no whole answer within 0\.3 s") as caught:
        over_sockets(drip, create, deadline_s=0.3)

    assert time.monotonic() - began < 5
    assert caught.value.may_have_happened


def test_answer_without_end_is_cut_off() -> None:
    """An answer that is larger than anything we ask for does not fill the memory."""
    sent = 0

    async def endless(_request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            await writer.drain()
            sent += 65_536

    with pytest.raises(UnusableAnswerError, match="more than 1000000 bytes") as caught:
        over_sockets(endless, create, largest_answer=1_000_000)

    assert caught.value.may_have_happened
    assert sent < 50_000_000


def test_compressed_answer_is_measured_by_what_comes_out() -> None:
    """A small answer that unpacks to a huge one is as large as what it unpacks to."""
    body = gzip.compress(b" " * 20_000_000)

    with pytest.raises(UnusableAnswerError, match="more than"):
        over_sockets(answering(an_answer(body, "Content-Encoding: gzip")), read, largest_answer=1_000_000)


def test_cookie_is_neither_kept_nor_sent() -> None:
    """What the answer for one customer sets does not travel with the request for the next one."""
    requests: list[bytes] = []

    async def setting(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(an_answer(b'{"id": "s"}', "Set-Cookie: customer=a; Path=/"))
        await writer.drain()

    async def twice(api: ManagementApi) -> None:
        await api.get_sync("a")
        await api.create_sync({}, idempotency_key="k", before=at_once)
        await api.get_sync("b")

    over_sockets(setting, twice)

    assert len(requests) == 3
    assert not any(b"cookie" in request.lower() for request in requests)


async def _hang_up(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _reset(_request: bytes, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def _half(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(an_answer()[:-4])
    await writer.drain()
    writer.close()


LOST: dict[str, Serve] = {
    "closed": _hang_up,
    "reset": _reset,
    "half an answer": _half,
    "not HTTP": answering(b"SSH-2.0-OpenSSH_9.7\r\n\r\n"),
    "broken compression": answering(an_answer(b"x", "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("serve", LOST.values(), ids=LOST.keys())
def test_connection_lost_after_sending_may_have_happened(serve: Serve) -> None:
    """The request arrived, its answer did not: a create may have been carried out, a read changed nothing."""
    with pytest.raises(TransientError) as change:
        over_sockets(serve, create)
    with pytest.raises(TransientError) as reading:
        over_sockets(serve, read)

    assert isinstance(change.value, ApiUnavailableError | UnusableAnswerError)
    assert (change.value.may_have_happened, reading.value.may_have_happened) == (True, False)


def test_refused_connection_has_not_happened() -> None:
    """Where nobody listens nothing was sent, so that nothing has to be waited for."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def send() -> None:
            api = ManagementApi(f"http://127.0.0.1:{port}", TOKEN)
            try:
                await create(api)
            finally:
                await api.close()

        with pytest.raises(ApiUnavailableError) as caught:
            asyncio.run(send())

    assert not caught.value.may_have_happened


def test_redirect_is_not_followed() -> None:
    """The token goes to no other address than the one it is meant for."""
    requests: list[bytes] = []

    async def elsewhere(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(an_answer(b"", "Location: /v1/elsewhere", status="307 Temporary Redirect"))
        await writer.drain()

    with pytest.raises(UnusableAnswerError):
        over_sockets(elsewhere, create)

    assert len(requests) == 1


def test_connections_are_bounded_and_used_again() -> None:
    """Many calls share a few connections; each gets its own answer."""
    connections: set[asyncio.StreamWriter] = set()

    async def echo(request: bytes, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        await asyncio.sleep(0.005)
        sync_id = request.split(b" ")[1].rsplit(b"/", 1)[1]
        writer.write(an_answer(b'{"id": "%s"}' % sync_id))
        await writer.drain()

    async def many(api: ManagementApi) -> list[str]:
        return [sync.id for sync in await asyncio.gather(*(api.get_sync(str(n)) for n in range(200)))]

    assert over_sockets(echo, many) == [str(n) for n in range(200)]
    assert len(connections) <= MAX_CALLS


def test_limit_is_told_to_whoever_observes() -> None:
    """Every answer is shown with its headers, also a refusal."""
    seen: list[tuple[int, str | None]] = []
    answer = an_answer(b'{"summary": "slow"}', "RateLimit-Remaining: 0", status="429 Too Many Requests")

    with pytest.raises(RateLimitedError):
        over_sockets(
            answering(answer),
            read,
            observe=lambda answer: seen.append((answer.status, answer.headers.get("ratelimit-remaining"))),
        )

    assert seen == [(429, "0")]
