"""How this service says no: one body for every refusal, and nothing of the request in it."""

from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException


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


def answer(status: int, summary: str, fields: Mapping[str, Sequence[str]] | None = None) -> JSONResponse:
    body: dict[str, object] = {"summary": summary}
    if fields is not None:
        body["validation_errors"] = {name: list(reasons) for name, reasons in fields.items()}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Give every refusal that one shape, the framework's own among them."""

    @app.exception_handler(Refusal)
    async def _refuse(_request: Request, exc: Refusal) -> JSONResponse:
        return answer(exc.status, exc.summary, exc.fields)

    @app.exception_handler(HTTPException)
    async def _refuse_http(_request: Request, exc: HTTPException) -> JSONResponse:
        return answer(exc.status_code, str(exc.detail))
