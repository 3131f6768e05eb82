"""What a request to a provider may cost at most: seconds in all, and bytes.

httpx bounds each wait by itself, so an answer whose headers come byte by byte might take for ever. The
connections of a bounded client know until when the request at hand has to be over, whatever it waits for.
Only the resolver keeps its own time.
"""

import math
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ssl import SSLContext
from typing import Any, Final

import httpcore
import httpx

_until: Final = ContextVar("until", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What this thread asks of bounded clients in the block is over by then, or ends as a timeout."""
    before = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(before)


def bounded(client: httpx.Client) -> httpx.Client:
    """The same client, whose connections mind `within`."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)  # httpx offers no other way to it that keeps its proxies
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)
    return client


def read(reply: httpx.Response, limit: int) -> bytes:
    """The body of a streamed answer, unless it is larger or takes longer than allowed."""
    body = bytearray()
    for chunk in reply.iter_bytes():
        _add(body, chunk, limit)
        if time.monotonic() > _until.get():
            raise httpx.ReadTimeout("the answer takes too long")
    return bytes(body)


async def aread(reply: httpx.Response, limit: int) -> bytes:
    """The same for clients on an event loop, where `asyncio.timeout` bounds the time."""
    body = bytearray()
    async for chunk in reply.aiter_bytes():
        _add(body, chunk, limit)
    return bytes(body)


def _add(body: bytearray, chunk: bytes, limit: int) -> None:
    body += chunk
    if len(body) > limit:
        raise httpx.ReadError("the answer is too large")


def _left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """How long one wait may take."""
    left = _until.get() - time.monotonic()
    if left <= 0:
        raise error("the answer takes too long")
    if math.isinf(left):
        return timeout
    return left if timeout is None else min(timeout, left)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Try each address in turn; left to itself, every one of them would have the whole timeout."""
        error: Exception = httpcore.ConnectError(f"no address of {host}")
        for address in addresses_of(host, port):
            left = _left(timeout, httpcore.ConnectTimeout)
            try:
                return _Stream(self._inner.connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                error = exc
        raise error


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def addresses_of(host: str, port: int) -> list[str]:
    """Where a host can be reached."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise httpcore.ConnectError(str(exc)) from None
    return [str(address[0]) for *_, address in found]
