"""The operations of the Management API as plain values: what to send, and how to read the answer."""

import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from worker.errors import (
    ApiRejectedError,
    ApiTokenError,
    ApiUnavailableError,
    NotFoundError,
    ProvisioningError,
    RateLimitedError,
    UnusableAnswerError,
)
from worker.management.shapes import RemoteCredential, RemoteStream, RemoteSync
from worker.retry import parse_retry_after

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Body = Mapping[str, JsonValue]

_TRY_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_TOKEN_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and the reading of a successful answer."""

    method: str
    path: str
    read: Callable[[object], T]
    body: Body | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    is_always_there: bool = False
    """Whether every API of this contract knows the path, so that a 404 means that this is not one."""

    @property
    def changes_something(self) -> bool:
        return self.method != "GET"


def import_credential(body: Body) -> Call[RemoteCredential]:
    return Call("POST", "/v1/credentials", _one(RemoteCredential), body=body, is_always_there=True)


def get_credential(credential_id: str) -> Call[RemoteCredential]:
    return Call("GET", _at("credentials", credential_id), _one(RemoteCredential))


def list_credentials(*, metadata: Mapping[str, JsonValue]) -> Call[list[RemoteCredential]]:
    params = {"metadata": json.dumps(metadata)}
    return Call("GET", "/v1/credentials", _many(RemoteCredential), params=params, is_always_there=True)


def delete_credential(credential_id: str) -> Call[None]:
    return Call("DELETE", _at("credentials", credential_id), _nothing)


def create_sync(body: Body, *, idempotency_key: str) -> Call[RemoteSync]:
    headers = {"Idempotency-Key": idempotency_key}  # undocumented; an API that knows it not ignores it
    return Call("POST", "/v1/syncs", _one(RemoteSync), body=body, headers=headers)


def get_sync(sync_id: str) -> Call[RemoteSync]:
    return Call("GET", _at("syncs", sync_id), _one(RemoteSync))


def list_syncs(
    *,
    stream_id: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
    only: Set[str] | None = None,
) -> Call[list[RemoteSync]]:
    """`only`: the ids worth reading; a stream may hold many more syncs than are asked about."""
    params: dict[str, str] = {}
    if stream_id is not None:
        params["stream_id"] = stream_id
    if metadata is not None:
        params["metadata"] = json.dumps(metadata)
    return Call("GET", "/v1/syncs", _many(RemoteSync, only), params=params, is_always_there=True)


def update_sync(sync_id: str, changes: Body) -> Call[RemoteSync]:
    return Call("PATCH", _at("syncs", sync_id), _one(RemoteSync), body=changes)


def delete_sync(sync_id: str) -> Call[None]:
    return Call("DELETE", _at("syncs", sync_id), _nothing)


def list_streams() -> Call[list[RemoteStream]]:
    return Call("GET", "/v1/streams", _many(RemoteStream), is_always_there=True)


def create_stream(slug: str) -> Call[RemoteStream]:
    return Call("POST", "/v1/streams", _one(RemoteStream), body={"slug": slug}, is_always_there=True)


def _at(collection: str, object_id: str) -> str:
    """The path of one object; an id from outside can name no other path, be it of slashes or of dots."""
    quoted = quote(object_id, safe="")
    return f"/v1/{collection}/{quoted if quoted.strip('.') else quoted.replace('.', '%2E')}"


def answer(call: Call[T], response: httpx.Response) -> T:
    """The result of a call, or one of our errors."""
    if response.is_success:
        return _read(call, response)
    raise _refusal(call, response)


def failure(call: Call[T], exc: httpx.RequestError) -> ApiUnavailableError:
    """What a broken exchange means: above all, whether the request may have been carried out."""
    never_sent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    reason = f"no answer: {type(exc).__name__}"
    return ApiUnavailableError(reason, may_have_happened=call.changes_something and not never_sent)


def _read(call: Call[T], response: httpx.Response) -> T:
    try:
        return call.read(response.json() if response.content else None)
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise _unusable(call, response) from _harmless(exc)


def _unusable(call: Call[T], response: httpx.Response) -> UnusableAnswerError:
    reason = f"{call.method} {call.path} was answered {response.status_code}, not as the contract says"
    return UnusableAnswerError(reason, may_have_happened=call.changes_something)


def _harmless(exc: Exception) -> Exception | None:
    """A decoding error carries the whole body, which may hold secrets; a validation error hides its input."""
    return exc if isinstance(exc, ValidationError) else None


def _refusal(call: Call[T], response: httpx.Response) -> ProvisioningError:
    status = response.status_code
    is_missing = status == HTTPStatus.NOT_FOUND and call.is_always_there
    if status < HTTPStatus.BAD_REQUEST or is_missing or status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _unusable(call, response)  # somebody else answers at this address: no customer's fault
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
    summary, fields = _error_body(response)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(summary, retry_after_s=retry_after_s)
    if status in _TRY_LATER or (
        status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED
    ):
        return ApiUnavailableError(
            f"{status}: {summary}", retry_after_s=retry_after_s, may_have_happened=call.changes_something
        )
    if status in _TOKEN_REFUSED:
        return ApiTokenError(f"{status}: {summary}")
    kind = NotFoundError if status == HTTPStatus.NOT_FOUND else ApiRejectedError
    return kind(status, summary, fields)


def _error_body(response: httpx.Response) -> tuple[str, Mapping[str, object]]:
    fallback = response.reason_phrase or "no reason given"
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return fallback, {}
    if not isinstance(body, dict):
        return fallback, {}
    fields = body.get("validation_errors")
    return str(body.get("summary") or fallback), fields if isinstance(fields, dict) else {}


def _one(model: type[M]) -> Callable[[object], M]:
    """A bare object; one wrapped as `{data: {...}}`, or as a list of one, is understood too (contract 14)."""

    def read(body: object) -> M:
        if isinstance(body, dict) and "id" not in body and "data" in body:
            body = body["data"]
        if isinstance(body, list) and len(body) == 1:
            body = body[0]
        return model.model_validate(body)

    return read


def _many(model: type[M], only: Set[str] | None = None) -> Callable[[object], list[M]]:
    """`{data: [...]}`; a bare list is understood too."""

    def read(body: object) -> list[M]:
        items = body.get("data") if isinstance(body, dict) else body
        if not isinstance(items, list):
            raise ValueError("expected a list")  # noqa: TRY004  # a wrong answer, not a wrong argument
        return [model.model_validate(item) for item in items if only is None or _id_of(item) in only]

    return read


def _id_of(item: object) -> str | None:
    return str(item.get("id")) if isinstance(item, dict) else None


def _nothing(_body: object) -> None:
    return None
