"""The operations of the Management API as plain values: what to send, and how to read the answer."""

import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import quote

import aiohttp
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
from worker.management.changes import ChangesPage, DeletedSync
from worker.management.shapes import RemoteCredential, RemoteStream, RemoteSync
from worker.retry import parse_retry_after

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Body = Mapping[str, JsonValue]

_TRY_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_STATUSES = frozenset(HTTPStatus)
_BEFORE_SENDING = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
)
_TOKEN_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and the reading of a successful answer."""

    method: str
    path: str
    read: Callable[[object], T]
    body: Body | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    is_always_there: bool = False
    """Whether every API of this contract knows the path, so that a 404 means that this is not one."""

    @property
    def changes_something(self) -> bool:
        return self.method != "GET"


def import_credential(body: Body) -> Call[RemoteCredential]:
    return Call("POST", "/v1/credentials", _one(RemoteCredential), body=body, is_always_there=True)


def get_credential(credential_id: str) -> Call[RemoteCredential]:
    return Call("GET", _at("credentials", credential_id), _one(RemoteCredential))


def list_credentials(
    metadata: Mapping[str, JsonValue], *, cursor: str | None = None
) -> Call["ListPage[RemoteCredential]"]:
    params = {"metadata": json.dumps(metadata)}
    if cursor is not None:
        params["cursor"] = cursor
    return Call(
        "GET", "/v1/credentials", _page(RemoteCredential, None, metadata), params=params, is_always_there=True
    )


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
    limit: int | None = None,
    cursor: str | None = None,
) -> Call["ListPage[RemoteSync]"]:
    """`only`: the ids worth reading; a stream may hold many more syncs than are asked about."""
    params: dict[str, str] = {}
    if stream_id is not None:
        params["stream_id"] = stream_id
    if metadata is not None:
        params["metadata"] = json.dumps(metadata)
    if limit is not None:
        params["limit"] = str(limit)
    if cursor is not None:
        params["cursor"] = cursor
    return Call("GET", "/v1/syncs", _page(RemoteSync, only, metadata), params=params, is_always_there=True)


def changed_syncs(cursor: str | None, *, limit: int) -> Call[ChangesPage | None]:
    params = {"changed_since": cursor or "", "limit": str(limit)}
    return Call("GET", "/v1/syncs", _changes, params=params, is_always_there=True)


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


def result(call: Call[T], answer: Answer) -> T:
    """The result of a call, or one of our errors."""
    if answer.is_success:
        return _read(call, answer)
    raise _refusal(call, answer)


def failure(call: Call[T], exc: httpx.RequestError | aiohttp.ClientError) -> ApiUnavailableError:
    """What a broken exchange means: above all, whether the request may have been carried out."""
    reason = f"no answer: {type(exc.__cause__ or exc).__name__}"
    return ApiUnavailableError(reason, may_have_happened=call.changes_something and not _never_sent(exc))


def _never_sent(exc: httpx.RequestError | aiohttp.ClientError) -> bool:
    """Whether the connection could not even be made.

    The aiohttp transport calls every lost connection a `ConnectTimeout`, so its own error decides.
    """
    cause = exc if isinstance(exc, aiohttp.ClientError) else exc.__cause__
    if isinstance(cause, aiohttp.ClientError):
        return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return isinstance(exc, _BEFORE_SENDING)


def _read(call: Call[T], answer: Answer) -> T:
    try:
        return call.read(json.loads(answer.body) if answer.body else None)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise _unusable(call, answer) from _harmless(exc)


def _unusable(call: Call[T], answer: Answer) -> UnusableAnswerError:
    reason = f"{call.method} {call.path} was answered {answer.status}, not as the contract says"
    return UnusableAnswerError(reason, may_have_happened=call.changes_something)


def too_large(call: Call[T], limit: int) -> UnusableAnswerError:
    reason = f"{call.method} {call.path} was answered with more than {limit} bytes"
    return UnusableAnswerError(reason, may_have_happened=call.changes_something)


def _harmless(exc: Exception) -> Exception | None:
    """A decoding error carries the whole body, which may hold secrets; a validation error hides its input."""
    return exc if isinstance(exc, ValidationError) else None


def _refusal(call: Call[T], answer: Answer) -> ProvisioningError:
    status = answer.status
    body = _error_body(answer)
    is_missing = status == HTTPStatus.NOT_FOUND and call.is_always_there
    if status < HTTPStatus.BAD_REQUEST or is_missing or status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _unusable(call, answer)  # another server answers at this address: no customer's fault
    retry_after_s = parse_retry_after(answer.headers.get("Retry-After"))
    summary, fields = body or (_phrase(status), {})
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(summary, retry_after_s=retry_after_s)
    if status in _TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApiUnavailableError(
            f"{status}: {summary}", retry_after_s=retry_after_s, may_have_happened=call.changes_something
        )
    if status in _TOKEN_REFUSED:
        return ApiTokenError(f"{status}: {summary}")
    if body is None:
        return _unusable(call, answer)  # a firewall or a proxy: only the contract's own words are final
    kind = NotFoundError if status == HTTPStatus.NOT_FOUND else ApiRejectedError
    return kind(status, summary, fields)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in _STATUSES else "no reason given"


def _error_body(answer: Answer) -> tuple[str, Mapping[str, object]] | None:
    """The summary and the errors by field of the contract's error body (contract 1.4), if it is one."""
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("summary"), str):
        return None
    fields = body.get("validation_errors")
    return body["summary"] or "no reason given", fields if isinstance(fields, dict) else {}


def _one(model: type[M]) -> Callable[[object], M]:
    """A bare object; one wrapped as `{data: {...}}`, or as a list of one, is understood too (contract 14)."""

    def read(body: object) -> M:
        if isinstance(body, dict) and "id" not in body and "data" in body:
            body = body["data"]
        if isinstance(body, list) and len(body) == 1:
            body = body[0]
        return model.model_validate(body)

    return read


@dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """A list, or a page of one where the API has pages."""

    items: list[T]
    size: int
    """How many objects the answer held, wanted or not."""
    next_cursor: str | None = None


def _many(model: type[M]) -> Callable[[object], list[M]]:
    """`{data: [...]}`; a bare list is understood too."""
    read_page = _page(model, None)
    return lambda body: read_page(body).items


def _page(
    model: type[M], only: Set[str] | None, mark: Mapping[str, JsonValue] | None = None
) -> Callable[[object], ListPage[M]]:
    """One odd object spoils no list: it is left out, unless it carries the mark that is searched for."""

    def wanted(item: object) -> M | None:
        if only is not None and _id_of(item) not in only:
            return None
        try:
            return model.model_validate(item)
        except ValidationError:
            if mark is not None and _carries(item, mark):
                raise
            return None

    def read(body: object) -> ListPage[M]:
        items = body.get("data") if isinstance(body, dict) else body
        if not isinstance(items, list):
            raise ValueError("expected a list")  # noqa: TRY004  # a wrong answer, not a wrong argument
        found = [each for each in (wanted(item) for item in items) if each is not None]
        following = body.get("next_cursor") if isinstance(body, dict) else None
        return ListPage(found, len(items), following if isinstance(following, str) else None)

    return read


def _carries(item: object, mark: Mapping[str, JsonValue]) -> bool:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    return isinstance(metadata, dict) and mark.items() <= metadata.items()


def _changes(body: object) -> ChangesPage | None:
    """A page of the feed; an API without the feed ignores the parameter and answers with a plain list."""
    if not isinstance(body, dict) or not {"next_cursor", "has_more", "data"} <= body.keys():
        return None
    changed: list[RemoteSync] = []
    deleted: list[DeletedSync] = []
    unread: list[str] = []
    for item in body["data"]:
        try:
            if item.get("deleted_at"):
                deleted.append(DeletedSync.model_validate(item))
            else:
                changed.append(RemoteSync.model_validate(item))
        except ValidationError:
            unread.append(str(item.get("id")))
    return ChangesPage(
        changed=tuple(changed),
        deleted=tuple(deleted),
        unread=tuple(unread),
        next_cursor=body["next_cursor"],
        has_more=body["has_more"],
    )


def _id_of(item: object) -> str | None:
    return str(item.get("id")) if isinstance(item, dict) else None


def _nothing(_body: object) -> None:
    return None
