"""The outermost layer: notes when a request arrived, gives it an id, and logs how it was answered."""

import re
import time
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID: Final = "X-Request-Id"
ACCEPTABLE_ID: Final = re.compile(r"[\w.-]{1,128}", re.ASCII)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger(__name__)


class Arrival:
    """Measures from the moment the request's head was read; the request deadline counts from there too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_at = time.monotonic()
        scope.setdefault("state", {})["received_at"] = received_at
        request_id = _request_id(scope)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
                _log(scope, message["status"], received_at)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_noted)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if ACCEPTABLE_ID.fullmatch(given) else str(uuid4())


def _log(scope: Scope, status: int, received_at: float) -> None:
    calm = scope["method"] in SAFE_METHODS and status < 400
    (log.debug if calm else log.info)(
        "request.answered",
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round((time.monotonic() - received_at) * 1000, 1),
    )
