"""Reading what a request brings: JSON bodies and the metadata filter of lists."""

import json

from .errors import ApiError
from .validation import JsonObject
from .wire import Request


def read_body(request: Request) -> JsonObject:
    """Read a JSON object, refusing other types and anything that is not JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, "Content-Type must be application/json")
    try:
        body = json.loads(request.body, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "The body is not valid JSON") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object")
    return body


def refuse_constant(name: str) -> None:
    """Refuse the numbers that Python knows and JSON does not."""
    raise ValueError(name)


def metadata_filter(query: dict[str, str]) -> JsonObject:
    """Read the metadata parameter of a list."""
    try:
        wanted = json.loads(query.get("metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "The metadata parameter is not valid JSON") from error
    if not isinstance(wanted, dict):
        raise ApiError(400, "The metadata parameter must be a JSON object")
    return wanted
