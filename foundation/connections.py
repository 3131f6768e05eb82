"""One HTTP connection with bounds: on the size of a request, on the sender's time, on how many are open."""

import asyncio
import json
import math
import resource
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

LINGER_S: Final = 2.0
"""How long a refused sender may go on sending, so that it gets to read the refusal."""
RESERVED_DESCRIPTORS: Final = 48
"""What databases, the broker and the log need beside the connections of senders."""
MOST_CONNECTIONS: Final = 1000
FEWEST_CONNECTIONS: Final = 8


def affordable_connections() -> int:
    """How many connections may be open at once: fewer where the process may open few files."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - RESERVED_DESCRIPTORS, FEWEST_CONNECTIONS))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sender may take: bytes of a head and of an announced body, and seconds to send each."""

    head_bytes: int = 32 * 1024
    body_bytes: int = 1024 * 1024
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: int = 30
    connections: int = field(default_factory=affordable_connections)


class BoundedState(ServerState):
    """The state that all connections of one server share: the limits, and how often one was reached."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.refusals: Counter[str] = Counter()


class BoundedConnection(HttpToolsProtocol):
    """Refuses a request that is too large or too slow before it costs memory or holds a connection.

    httptools keeps an unfinished header in memory and copies it with every piece that arrives.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if not isinstance(server_state, BoundedState):
            raise TypeError("BoundedConnection needs the state of foundation.server.Server")
        self._state = server_state
        self._limits = server_state.limits
        # Bytes of a head, a chunk's frame or a trailer that is not complete. What follows something complete
        # within one read (256 KiB at most) is not counted.
        self._unparsed = 0
        self._since = math.inf  # when it became the sender's turn
        self._allowed_s = math.inf
        self._is_body_due = False
        self._is_receiving = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._await_sender(self._limits.head_s)
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if not self._is_refused:
                self.cycle.keep_alive = False  # answered as plain HTTP; the parser reads nothing after it
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "not a valid HTTP request")
        else:
            if self._unparsed > self._limits.head_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_receiving = True
        self._await_sender(self._limits.head_s)

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        if self._unparsed > self._limits.head_bytes and self._head_size() > self._limits.head_bytes:
            self._refuse_head()
        elif self._announced_size() > self._limits.body_bytes:
            summary = f"body: expected at most {self._limits.body_bytes} bytes"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, summary)
        else:
            self._unparsed = 0
            self._is_body_due = True
            self._await_sender(self._limits.body_s)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            self._unparsed = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_refused:
            return
        self._unparsed = 0
        self._is_receiving = self._is_body_due = False
        self._since = math.inf
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_sender(self._limits.idle_s)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # it counts from the answer also when the next head has begun
        if not self._is_receiving and not self.pipeline:
            self._await_sender(self._limits.idle_s)

    def shutdown(self) -> None:
        if self._is_refused:
            self.transport.abort()
        else:
            super().shutdown()

    def end_if_late(self, now: float) -> None:
        """Refuse a sender that has had its time; the time that we did not read does not count."""
        if self._is_refused or self._since == math.inf:
            return
        if self.flow.read_paused:
            self._since = now
        elif now - self._since > self._allowed_s:
            self._end_late()

    def _end_late(self) -> None:
        if not self._is_receiving:
            self.transport.close()
            return
        part = "body" if self._is_body_due else "head"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"{part}: not received within {self._allowed_s:g} s")

    def _await_sender(self, seconds: float) -> None:
        self._since = self.loop.time()
        self._allowed_s = seconds

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its sender; if there is none, refuse this one."""
        others = (
            each for each in self.connections if isinstance(each, BoundedConnection) and each is not self
        )
        longest = min(others, key=lambda each: each._since, default=self)
        if longest._since == math.inf or longest is self:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many open connections", linger_s=0)
        else:
            self._state.refusals["displaced"] += 1
            self.connections.discard(longest)
            longest.transport.abort()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _announced_size(self) -> int:
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    def _refuse_head(self) -> None:
        summary = f"request line and headers: expected at most {self._limits.head_bytes} bytes"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, summary)

    def _refuse(self, status: HTTPStatus, summary: str, *, linger_s: float = LINGER_S) -> None:
        """Answer and close, reading on for a moment: closing at once could destroy the answer on its way."""
        if self._is_refused:
            return
        self._is_refused = True
        self._state.refusals[str(status.value)] += 1
        if not self._may_answer():
            self.transport.abort()
            return
        self._disconnect_app()
        self.transport.write(_refusal(status, summary))
        if linger_s and self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(linger_s, self.transport.abort)
        else:
            self.transport.close()

    def _may_answer(self) -> bool:
        """Nothing of another answer is on its way, nor of this one."""
        cycle = self._unanswered()
        if cycle is None:
            return not self._is_body_due  # a body that is due by then was answered already
        return self._is_body_due and not self.pipeline and not cycle.response_started

    def _disconnect_app(self) -> None:
        if cycle := self._unanswered():
            cycle.disconnected = True
            cycle.message_event.set()

    def _unanswered(self) -> RequestResponseCycle | None:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        return None if cycle is None or cycle.response_complete else cycle


def _refusal(status: HTTPStatus, summary: str) -> bytes:
    body = json.dumps({"summary": summary}).encode()
    retry = b"retry-after: 5\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else b""
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    return STATUS_LINE[status] + head + retry + b"\r\n" + body
