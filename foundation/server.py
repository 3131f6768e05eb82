"""The HTTP server of every service: uvicorn with bounds on what one sender, or all of them, may take."""

import os
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from foundation.connections import BoundedConnection, BoundedState, Limits

TICKS_PER_CHECK: Final = 10
"""uvicorn ticks ten times a second."""
REPORT_EVERY_S: Final = 10.0
GRACE_S: Final = 10

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Serves one app, ends late senders, and logs at a gentle pace how many were refused and why."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        proxy_headers: bool = True,
        grace_s: int = GRACE_S,
        on_signal: Callable[[], None] | None = None,
    ) -> None:
        limits = limits or Limits()
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=BoundedConnection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=proxy_headers,
                timeout_keep_alive=limits.idle_s,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._bounded = BoundedState(limits)
        self.server_state = self._bounded
        self._on_signal = on_signal
        self._reported_at = -REPORT_EVERY_S

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._on_signal is not None:
            self._on_signal()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_CHECK == 0:
            self._end_late_senders()
            self._report()
        return await super().on_tick(counter)

    def _end_late_senders(self) -> None:
        for connection in list(self._bounded.connections):
            if isinstance(connection, BoundedConnection):
                connection.end_if_late(connection.loop.time())

    def _report(self) -> None:
        if not _can_open_files():
            self._bounded.refusals["no_file_descriptors"] += 1
        now = time.monotonic()
        if self._bounded.refusals and now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            log.warning("http.refused", open=len(self._bounded.connections), **self._bounded.refusals)
            self._bounded.refusals.clear()


def _can_open_files() -> bool:
    """Try it: with none left the event loop closes new connections and says nothing."""
    try:
        os.close(os.dup(2))
    except OSError:
        return False
    return True
