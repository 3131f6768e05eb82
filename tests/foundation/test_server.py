"""Senders that are too large, too slow or too many are refused, and cost the others nothing."""

import errno
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import structlog

from foundation.connections import Limits, affordable_connections
from foundation.server import Server
from tests.support.serving import connected, eventually, exchange, rest_of, serving

HASTY = Limits(head_bytes=4096, body_bytes=10_000, head_s=0.5, body_s=0.5, idle_s=1, connections=5)
PATIENT = Limits(head_bytes=4096, body_bytes=10_000, head_s=60, body_s=60, idle_s=60, connections=5)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers its length; /unread answers without reading."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    size, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    text = str(size).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
def patient() -> Iterator[int]:
    with serving(echo, PATIENT) as port:
        yield port


@pytest.fixture
def hasty() -> Iterator[int]:
    with serving(echo, HASTY) as port:
        yield port


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


TOO_LARGE = {
    "endless header": (b"GET / HTTP/1.1\r\nX: ", b"a" * 100_000),
    "endless header name": (b"GET / HTTP/1.1\r\n", b"a" * 100_000),
    "endless URL": (b"GET /", b"a" * 100_000),
    "endless method": (b"G", b"E" * 100_000),
    "many headers": (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 20_000),
    "large but whole": (b"GET / HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n",),
    "large on a used connection": (GET, b"GET / HTTP/1.1\r\nX: ", b"a" * 600_000),
}


@pytest.mark.parametrize("parts", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_large_head_is_refused(patient: int, parts: tuple[bytes, ...]) -> None:
    """A head beyond the limit is 431 (or no HTTP at all), in whatever part it grows."""
    answer = exchange(patient, *parts)

    assert status(answer[answer.rindex(b"HTTP/1.1 ") :]) in (431, 400)
    assert b'{"summary": "' in answer
    assert status(exchange(patient, LAST)) == 200


def test_endless_header_costs_little_time() -> None:
    """Many megabytes of one header in small pieces are refused at once."""
    with serving(echo) as port:
        began = time.process_time()
        answer = exchange(port, b"GET / HTTP/1.1\r\nX: ", *[b"a" * 20_000] * 10_000)  # 200 MB
        took = time.process_time() - began

    assert status(answer) == 431
    assert took < 5


@pytest.mark.parametrize("tail", [b"0\r\nX: " + b"a" * 600_000, b"1;" + b"a" * 600_000])
def test_large_trailer_is_refused(patient: int, tail: bytes) -> None:
    """What follows a body, or frames it, is bounded as the head is."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

    assert status(exchange(patient, head, tail)) == 431


def test_announced_body_is_refused_before_it_is_sent(patient: int) -> None:
    """A Content-Length beyond the limit is 413 at once, while nothing of the body has come."""
    answer = exchange(patient, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\n\r\n")

    assert status(answer) == 413
    assert b'{"summary": "body: expected at most 10000 bytes"}' in answer


def test_refusal_reaches_a_sender_that_still_sends(patient: int) -> None:
    """The answer is not lost because the body was under way."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"

    assert status(exchange(patient, head, *[b"a" * 100_000] * 30)) == 413


def test_largest_body_is_accepted(patient: int) -> None:
    """Exactly the limits are allowed."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10000\r\n\r\n"

    assert exchange(patient, head + b"a" * 10_000).endswith(b"10000")


@pytest.mark.parametrize(
    ("begun", "part"),
    [
        (b"GET / HTTP/1.1\r\nHost: ", b"head"),
        (GET + b"GET /", b"head"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", b"body"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", b"body"),
    ],
)
def test_late_sender_is_told_and_disconnected(hasty: int, begun: bytes, part: bytes) -> None:
    """A head or a body that does not arrive in its time ends with 408."""
    answer = exchange(hasty, begun)

    assert status(answer[answer.rindex(b"HTTP/1.1 ") :]) == 408
    assert part + b": not received within 0.5 s" in answer


def test_dripping_does_not_buy_time(hasty: int) -> None:
    """A byte now and then keeps no connection open: the time counts from the head's first byte."""
    with connected(hasty) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        sock.settimeout(0.05)
        eventually(lambda: answer_after(sock, b"a") != b"")


def answer_after(sock: socket.socket, piece: bytes) -> bytes:
    """What the server says to one piece more, within the socket's time-out."""
    sock.sendall(piece)
    with suppress(TimeoutError):
        return sock.recv(65536)
    return b""


@pytest.mark.parametrize(
    "begun", [b"", GET, b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"]
)
def test_idle_connection_is_closed(hasty: int, begun: bytes) -> None:
    """A connection without a request under way is closed quietly after a while."""
    with connected(hasty) as sock:
        sock.sendall(begun)
        answer = rest_of(sock)

    assert b" 408 " not in answer
    assert (b" 200 " in answer) == bool(begun)


def test_kept_connection_serves_on(patient: int) -> None:
    """Requests on one connection are answered one by one, also when they come at once."""
    assert exchange(patient, GET, GET, GET + GET + LAST).count(b"HTTP/1.1 200 OK") == 5


def test_upgrade_is_answered_as_plain_http(patient: int) -> None:
    """A client that offers HTTP/2 gets its answer, and knows that the connection ends with it."""
    offer = (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"
    )

    answer = exchange(patient, offer)

    assert status(answer) == 200
    assert b"connection: close" in answer


def test_idle_connections_make_room(patient: int) -> None:
    """At the limit the connection that waited longest for its sender is closed for the next one."""
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(patient)) for _ in range(20)]

        assert status(exchange(patient, LAST)) == 200
        assert rest_of(idle[0]) == b""


def test_connection_beyond_the_busy_ones_is_refused() -> None:
    """When all connections are at work, one more is 503 with Retry-After."""
    with serving(never, PATIENT) as port, ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connected(port)).sendall(GET)
        eventually(lambda: STARTED.count(port) == 5)

        answer = exchange(port, LAST)

    assert status(answer) == 503
    assert b"retry-after: 5" in answer


STARTED: list[int] = []


async def never(scope: Any, receive: Any, send: Any) -> None:
    """Takes a request and does not answer before the sender leaves."""
    if scope["type"] == "lifespan":
        await echo(scope, receive, send)
        return
    STARTED.append(scope["server"][1])
    while (await receive())["type"] != "http.disconnect":
        pass


def test_refusals_are_logged_gently() -> None:
    """One line counts many refusals, by status."""
    with structlog.testing.capture_logs() as logs, serving(echo, PATIENT) as port:
        for _ in range(20):
            exchange(port, b"GET /\x00 HTTP/1.1\r\n\r\n")
        eventually(lambda: any(line["event"] == "http.refused" for line in logs))

    lines = [line for line in logs if line["event"] == "http.refused"]
    assert len(lines) == 1
    assert 0 < lines[0]["400"] <= 20


def test_few_files_mean_few_connections() -> None:
    """Where a process may open 64 files, idle connections stop nobody, and the log tells of them."""
    script = "import tests.foundation.test_server as t; t.serve_with_few_files()"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
        with ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(connected(port))
            assert status(exchange(port, LAST)) == 200
            assert "displaced" in process.stdout.readline()
    finally:
        process.terminate()
        process.communicate()


def serve_with_few_files() -> None:
    """In a process of its own: serve with few files to open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  # read by the test
    structlog.configure(logger_factory=structlog.PrintLoggerFactory())
    assert affordable_connections() == 16
    server = Server(echo)
    server.run([listener])


def test_lack_of_files_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no file can be opened the log says so, since the event loop drops connections silently then."""

    def exhausted(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("foundation.server.os.dup", exhausted)

    with structlog.testing.capture_logs() as logs, serving(echo, PATIENT):
        eventually(lambda: any("no_file_descriptors" in line for line in logs))
