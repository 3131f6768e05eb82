"""Reads JSON bodies strictly: what a database cannot hold is refused here and never becomes a 500."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import JsonValue

from engine.errors import BadRequestError, TooLargeError

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_DIGITS: Final = 308
"""Whoever reads numbers as doubles, and a filter on SQLite does, can still hold them."""


class JsonRequest(Request):
    """A request whose JSON is bounded in size, is UTF-8, and holds no NUL and no number beyond a double."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise TooLargeError(MAX_BODY_BYTES)
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> JsonValue:
        return parse(await self.body())


class JsonRoute(APIRoute):
    """A route that reads its body as a `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


def parse(body: bytes | str) -> JsonValue:
    """The JSON value in a body, or 400."""
    try:
        text = body.decode() if isinstance(body, bytes) else body
        value: JsonValue = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_constant)
        text_of(value).encode()
    except RecursionError:
        raise BadRequestError("Invalid JSON: nested too deeply") from None
    except UnicodeError:
        raise BadRequestError("Invalid JSON: not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise BadRequestError(f"Invalid JSON: {exc.msg} at position {exc.pos}") from None
    except ValueError as exc:
        raise BadRequestError(f"Invalid JSON: {exc}") from None
    return value


def text_of(value: JsonValue) -> str:
    """All strings of a value as one text; raises when there is a NUL in it."""
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text and "\x00" in "".join(_strings(value)):
        raise ValueError("a string holds a NUL character")
    return text


def _strings(value: JsonValue) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for each in value for text in _strings(each)]
        case dict():
            return [*value, *(text for each in value.values() for text in _strings(each))]
        case _:
            return []


def _int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError("a number is beyond the range of a double")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is beyond the range of a double")
    return number


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
