"""HTTP/1.1 with keep-alive on a bare asyncio protocol: one request at a time per connection."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol, cast
from urllib.parse import parse_qsl

MAX_HEAD_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 1_048_576
LINGER_NOT: Final = struct.pack("ii", 1, 0)
REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent; header names are lower case and repeated ones are joined."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes

    def query(self) -> dict[str, str]:
        """Decode the query parameters; the last of equal names wins."""
        if not self.query_string:
            return {}
        return dict(parse_qsl(self.query_string, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Response:
    """A status and a JSON body."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drop:
    """No answer: the connection ends, politely or with a TCP reset."""

    reset: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service decided, and how long the client has to wait for it."""

    outcome: Response | Drop
    delay_s: float = 0.0


class Service(Protocol):
    """What stands behind the connections."""

    def receive(self, request: Request) -> Reply:
        """Decide about a request; whatever it changes is changed when this returns."""

    def finished(self, request: Request) -> None:
        """Learn that the reply to a request has left, or never will."""


class MalformedRequestError(Exception):
    """The bytes are not a request this server reads; the connection cannot go on."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._transport: asyncio.Transport
        self._later: Callable[..., object]
        self._buffer = bytearray()
        self._is_waiting = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._later = asyncio.get_running_loop().call_later

    def data_received(self, data: bytes) -> None:
        """Answer every complete request, in order."""
        if not self._is_refused:
            self._buffer += data
            self._advance()

    def _advance(self) -> None:
        while not self._is_waiting and not self._transport.is_closing():
            try:
                request = take_request(self._buffer)
            except MalformedRequestError as error:
                self._refuse(error)
                return
            if request is None:
                return
            self._handle(request)

    def _handle(self, request: Request) -> None:
        reply = self._service.receive(request)
        if reply.delay_s <= 0:
            self._finish(request, reply.outcome)
        else:
            self._is_waiting = True
            self._later(reply.delay_s, self._resume, request, reply.outcome)

    def _resume(self, request: Request, outcome: Response | Drop) -> None:
        self._is_waiting = False
        self._finish(request, outcome)
        self._advance()

    def _finish(self, request: Request, outcome: Response | Drop) -> None:
        self._service.finished(request)
        if self._transport.is_closing():
            return
        if isinstance(outcome, Drop):
            self._drop(outcome)
            return
        is_last = request.headers.get("connection", "").lower() == "close"
        self._transport.write(encode(outcome, is_last=is_last))
        if is_last:
            self._transport.close()

    def _refuse(self, error: MalformedRequestError) -> None:
        """Answer and hear the client out: closing at once could cost it the answer."""
        self._is_refused = True
        body = b'{"summary": "%s"}' % error.reason.encode()
        self._transport.write(encode(Response(error.status, body), is_last=True))
        self._transport.write_eof()

    def _drop(self, drop: Drop) -> None:
        if drop.reset:
            client: socket.socket = self._transport.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self._transport.abort()


def take_request(buffer: bytearray) -> Request | None:
    """Cut the first complete request off the buffer."""
    end = buffer.find(b"\r\n\r\n")
    if (len(buffer) if end < 0 else end) > MAX_HEAD_BYTES:
        raise MalformedRequestError(431, "Request header too large")
    if end < 0:
        return None
    request_line, *header_lines = buffer[:end].decode("latin-1").split("\r\n")
    headers = parse_headers(header_lines)
    length = body_length(headers)
    start, stop = end + 4, end + 4 + length
    if len(buffer) < stop:
        return None
    body = bytes(buffer[start:stop])
    del buffer[:stop]
    method, target = parse_request_line(request_line)
    path, _, query_string = target.partition("?")
    return Request(method, path, query_string, headers, body)


def parse_request_line(line: str) -> tuple[str, str]:
    """Return method and target."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1":
        raise MalformedRequestError(400, "Only HTTP/1.1 is spoken here")
    return parts[0], parts[1]


def parse_headers(lines: list[str]) -> dict[str, str]:
    """Read header lines into a mapping."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedRequestError(400, "Malformed header")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def body_length(headers: Mapping[str, str]) -> int:
    """Return how many bytes of body follow the head."""
    if "transfer-encoding" in headers:
        raise MalformedRequestError(411, "Content-Length required")
    text = headers.get("content-length", "0")
    if not text.isdecimal():
        raise MalformedRequestError(400, "Malformed Content-Length")
    if (length := int(text)) > MAX_BODY_BYTES:
        raise MalformedRequestError(413, "Body too large")
    return length


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """Write an instant as HTTP does; made once a second."""
    return formatdate(second, usegmt=True)


def encode(response: Response, *, is_last: bool) -> bytes:
    """Write a response as bytes."""
    lines = [
        f"HTTP/1.1 {response.status} {REASONS.get(response.status, '')}",
        f"date: {http_date(int(time.time()))}",
        "content-type: application/json",
        f"content-length: {len(response.body)}",
    ]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if is_last:
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + response.body
