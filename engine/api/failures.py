"""Turns everything that goes wrong into `{summary, validation_errors?}` (contract 1.4)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from engine.api.pages import error_page, reads_html
from engine.errors import ApiError, Reasons

log = structlog.get_logger(__name__)

Tree: TypeAlias = "dict[str, list[str] | Tree]"
WHOLE: Final = "_self"
METHODS: Final = ("GET", "HEAD", "POST", "PATCH", "DELETE")
PEOPLE: Final = "/link/oauth2/"
"""Below this, people come by with a browser."""


def install(app: FastAPI) -> None:
    """Answer every failure in the contract's shape."""
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _other)
    app.add_exception_handler(Exception, _unexpected)


def answer(status: int, summary: str, reasons: Reasons | None = None) -> JSONResponse:
    body: dict[str, object] = {"summary": summary}
    if reasons is not None:
        body["validation_errors"] = reasons
    return JSONResponse(body, status_code=status)


def reasons_of(errors: Sequence[dict[str, Any]]) -> Reasons:
    """Pydantic's flat list as a map from field to reasons, nested as the body is."""
    tree: Tree = {}
    for error in errors:
        *outer, field = [str(part) for part in error["loc"][1:]] or [WHOLE]
        _branch(tree, outer).setdefault(field, [error["msg"].removeprefix("Value error, ")])
    return tree


def _branch(tree: Tree, path: Sequence[str]) -> Tree:
    for name in path:
        below = tree.setdefault(name, {})
        if isinstance(below, list):  # the object itself is at fault, say no more about its fields
            return {}
        tree = below
    return tree


async def _refused(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, ApiError)  # noqa: S101  # the handler is registered for this type only
    refusal = answer(exc.status_code, exc.summary, exc.reasons)
    refusal.headers.update(exc.headers or {})
    return refusal


async def _invalid(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)  # noqa: S101  # as above
    errors = exc.errors()
    where, name = errors[0]["loc"][0], ".".join(str(part) for part in errors[0]["loc"][1:])
    if where != "body":
        return answer(400, f"Invalid {where} parameter {name}: {errors[0]['msg']}")
    if any(len(error["loc"]) < 2 for error in errors):
        return answer(422, "Validation failed: the body must be a JSON object", {})
    return answer(422, "Validation failed", reasons_of(errors))


async def _other(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)  # noqa: S101  # as above
    summary = "Not found: no such path" if exc.status_code == HTTPStatus.NOT_FOUND else str(exc.detail)
    refusal = answer(exc.status_code, summary)
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        refusal.headers["Allow"] = ", ".join(_served(request))
    return refusal


def _served(request: Request) -> list[str]:
    """The methods of this path; the exception knows those of one route, and each method is a route."""
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return [
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]


async def _unexpected(request: Request, exc: Exception) -> Response:
    log.error("request.failed", method=request.method, path=request.url.path, error=type(exc).__name__)
    if request.url.path.startswith(PEOPLE) and reads_html(request):
        return error_page("Something went wrong here.", "Please try again in a minute.", status=500)
    return answer(500, "Internal error")
