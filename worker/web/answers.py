"""How this service says no: one body for every refusal, and nothing of the request in it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundation.logs import place_of

RETRY_AFTER_S: Final = 5
UNAVAILABLE: Final = (OperationalError, InterfaceError, PoolTimeoutError)
"""The database is locked, full or away: nothing is wrong with the request, and later may be better."""

log = structlog.get_logger()


class Refusal(Exception):  # noqa: N818  # an answer rather than an error
    """Answer with this status and summary."""

    def __init__(self, status: int, summary: str, fields: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(status, summary, fields)
        self.status = status
        self.summary = summary
        self.fields = fields


class RefusalBody(BaseModel):
    """The body of every refusal: what is wrong, and for 422 the reasons for each field."""

    summary: str
    validation_errors: dict[str, list[str]] | None = None


class Unbroken:
    """Answers 500 for an error that nobody foresaw; the log tells its type and place.

    The error's own words are not logged, since they may quote the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as exc:  # noqa: BLE001  # it is logged and answered
            log.error("request.broken", error=type(exc).__name__, place=place_of(exc))  # noqa: TRY400  # its words
            if not is_begun:
                await answer(500, "Internal error; the log of this service tells more")(scope, receive, send)


def answer(status: int, summary: str, fields: Mapping[str, Sequence[str]] | None = None) -> JSONResponse:
    body: dict[str, object] = {"summary": summary}
    if fields is not None:
        body["validation_errors"] = {name: list(reasons) for name, reasons in fields.items()}
    return JSONResponse(body, status_code=status, headers=_headers(status))


def refused(exc: Refusal) -> JSONResponse:
    return answer(exc.status, exc.summary, exc.fields)


def put_off(exc: Exception) -> JSONResponse:
    """The answer while the database is of no use."""
    log.warning("request.put_off", error=type(exc).__name__, place=place_of(exc))
    return answer(HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be used at the moment; send again")


def install(app: FastAPI) -> None:
    """Give every refusal that one shape, the framework's own among them."""
    app.add_middleware(Unbroken)

    @app.exception_handler(Refusal)
    async def _refuse(_request: Request, exc: Refusal) -> JSONResponse:
        return refused(exc)

    @app.exception_handler(HTTPException)
    async def _refuse_http(_request: Request, exc: HTTPException) -> JSONResponse:
        return answer(exc.status_code, str(exc.detail))

    async def _put_off(_request: Request, exc: Exception) -> JSONResponse:
        return put_off(exc)

    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, _put_off)


def _headers(status: int) -> dict[str, str] | None:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_S)}
    return None
