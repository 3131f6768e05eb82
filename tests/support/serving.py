"""A server of ours on a free port, and bare sockets to speak to it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from foundation.connections import Limits
from foundation.server import Server


@contextmanager
def serving(app: Any, limits: Limits | None = None, **options: Any) -> Iterator[int]:
    """Run the app in a server of ours; gives its port."""
    server = Server(app, limits=limits, grace_s=1, **options)
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def connected(port: int, *, timeout_s: float = 20) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
        yield sock


def exchange(port: int, *parts: bytes, timeout_s: float = 20) -> bytes:
    """Send the parts and read until the server closes."""
    with connected(port, timeout_s=timeout_s) as sock:
        for part in parts:
            try:
                sock.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break  # refused while we still sent
        return rest_of(sock)


def rest_of(sock: socket.socket) -> bytes:
    """All that the server still sends before it closes."""
    received = bytearray()
    try:
        while chunk := sock.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # closed while bytes of ours were under way
    return bytes(received)


def eventually(condition: Callable[[], bool], within_s: float = 20) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
