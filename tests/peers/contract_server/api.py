"""The endpoints of the contract, on what the store remembers."""

import json
import time
from collections.abc import Callable, Iterable
from hmac import compare_digest
from random import Random
from typing import Final, NamedTuple

from .errors import ApiError, FieldErrors, invalid, not_found
from .store import Backfill, Credential, Store, Stream, Sync, contains
from .validation import (
    CREDENTIAL,
    CREDENTIAL_UPDATE,
    STREAM,
    SYNC,
    SYNC_IMMUTABLE,
    SYNC_UPDATE,
    JsonObject,
    field_errors,
    provider_of,
    require,
)
from .views import NEW_WORDS, Views
from .wire import Request, Response

DEFAULT_RATE_LIMITS: Final[dict[str, tuple[int, int] | None]] = {
    "stripe": (50, 1),
    "airtable": (3, 1),
    "salesforce": (28_800, 86_400),
    "hubspot": None,
    "github": None,
}
OTHER_RATE_LIMIT: Final = (5, 1)
UNROUTED: Final = "unrouted"

Handler = Callable[[Request, str], Response]


class Settings(NamedTuple):
    """How the API behaves when nothing goes wrong."""

    token: str
    create_status: int = 200
    backfill_min_s: float = 2.0
    backfill_max_s: float = 6.0
    seed: int = 0


class ManagementApi:
    """Answers requests below /v1."""

    def __init__(self, settings: Settings, store: Store, views: Views) -> None:
        self._settings = settings
        self._store = store
        self._views = views
        self._random = Random(f"backfills {settings.seed}")  # noqa: S311 - repeatable, nothing to guess
        self._handlers: dict[str, Handler] = {
            "POST /v1/streams": self._create_stream,
            "GET /v1/streams": self._list_streams,
            "GET /v1/streams/{id}": self._get_stream,
            "PATCH /v1/streams/{id}": self._update_stream,
            "DELETE /v1/streams/{id}": self._delete_stream,
            "POST /v1/credentials": self._import_credential,
            "GET /v1/credentials": self._list_credentials,
            "GET /v1/credentials/{id}": self._get_credential,
            "PATCH /v1/credentials/{id}": self._update_credential,
            "DELETE /v1/credentials/{id}": self._delete_credential,
            "POST /v1/syncs": self._create_sync,
            "GET /v1/syncs": self._list_syncs,
            "GET /v1/syncs/{id}": self._get_sync,
            "PATCH /v1/syncs/{id}": self._update_sync,
            "DELETE /v1/syncs/{id}": self._delete_sync,
        }

    def route(self, request: Request) -> str:
        """Return method and path template of a request."""
        parts = request.path.split("/", 3)
        template = "/".join(parts[:3]) + ("/{id}" if len(parts) > 3 else "")
        route = f"{request.method} {template}"
        return route if route in self._handlers else UNROUTED

    def handle(self, request: Request, route: str) -> Response:
        """Answer a request."""
        try:
            self._authenticate(request)
            handler = self._handlers.get(route, no_such_endpoint)
            return handler(request, id_in(request.path))
        except ApiError as error:
            return self.refuse(error)

    def refuse(self, error: ApiError) -> Response:
        """Answer with an error."""
        body: JsonObject = {"summary": error.summary}
        if error.fields is not None:
            body["validation_errors"] = error.fields
        return Response(error.status, self._views.encode(body), error.headers)

    def _authenticate(self, request: Request) -> None:
        header = request.headers.get("authorization")
        if header is None:
            raise ApiError(401, "Missing authorization header")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise ApiError(401, "Authorization header must begin with Bearer")
        if not compare_digest(token.encode(), self._settings.token.encode()):
            raise ApiError(401, "Unknown or expired token")

    # Streams

    def _create_stream(self, request: Request, _: str) -> Response:
        body = self._stream_body(request)
        now = time.time()
        stream = Stream(body["slug"], created_at=now, updated_at=now)
        self._store.streams[stream.id] = stream
        return self._created(self._views.encode_stream(stream))

    def _list_streams(self, _request: Request, _: str) -> Response:
        return self._listed(self._views.encode_stream(stream) for stream in self._store.streams.values())

    def _get_stream(self, _request: Request, id_: str) -> Response:
        return self._found(self._views.encode_stream(self._stream(id_)))

    def _update_stream(self, request: Request, id_: str) -> Response:
        stream = self._stream(id_)
        body = self._stream_body(request, stream)
        stream.slug, stream.updated_at = body["slug"], time.time()
        return self._found(self._views.encode_stream(stream))

    def _delete_stream(self, _request: Request, id_: str) -> Response:
        stream = self._stream(id_)
        if any(sync.stream_id == stream.id for sync in self._store.syncs):
            raise ApiError(422, "The stream still has syncs", {})
        del self._store.streams[stream.id]
        return self._deleted(stream.id)

    def _stream_body(self, request: Request, stream: Stream | None = None) -> JsonObject:
        body = read_body(request)
        require(body, STREAM)
        if self._store.stream_named(body["slug"]) not in (None, stream):
            raise invalid({"slug": ["has already been taken"]})
        return body

    def _stream(self, id_: str) -> Stream:
        if (stream := self._store.streams.get(id_)) is None:
            raise not_found("stream")
        return stream

    # Credentials

    def _import_credential(self, request: Request, _: str) -> Response:
        body = read_body(request)
        require(body, CREDENTIAL)
        if errors := provider_errors(body, body.get("provider")):
            raise invalid(errors)
        return self._created(self._views.encode_credential(self._upsert(body)))

    def _list_credentials(self, request: Request, _: str) -> Response:
        query = request.query()
        wanted = metadata_filter(query)
        return self._listed(
            self._views.encode_credential(credential)
            for credential in self._store.credentials.values()
            if credential.provider == query.get("provider", credential.provider)
            and credential.properties["kind"] == query.get("kind", credential.properties["kind"])
            and contains(credential.metadata, wanted)
        )

    def _get_credential(self, _request: Request, id_: str) -> Response:
        return self._found(self._views.encode_credential(self._credential(id_)))

    def _update_credential(self, request: Request, id_: str) -> Response:
        credential = self._credential(id_)
        body = read_body(request)
        require(body, CREDENTIAL_UPDATE)
        assign(credential, body)
        return self._found(self._views.encode_credential(credential))

    def _delete_credential(self, _request: Request, id_: str) -> Response:
        credential = self._credential(id_)
        if self._store.syncs_of(credential):
            raise ApiError(422, "The credential is still used by a sync", {})
        self._store.remove_credential(credential)
        return self._deleted(credential.id)

    def _credential(self, id_: str) -> Credential:
        if (credential := self._store.credentials.get(id_)) is None:
            raise not_found("credential")
        return credential

    def _upsert(self, body: JsonObject) -> Credential:
        properties = body["properties"]
        given = {name: value for name, value in body.items() if name != "provider"}
        known = self._store.credential_of(properties)
        if known is not None:
            assign(known, given)
            for sync in self._store.syncs_of(known):
                sync.settle(known.updated_at)
            return known
        now = time.time()
        provider = provider_of(properties["kind"]) or ""
        credential = Credential(provider, created_at=now, updated_at=now, **given)
        self._store.add_credential(credential)
        return credential

    # Syncs

    def _create_sync(self, request: Request, _: str) -> Response:
        body = read_body(request)
        if errors := self._sync_errors(body):
            raise invalid(errors)
        inline = body.pop("credential", None)
        id_ = body.pop("credential_id", "").lower()
        credential = self._store.credentials[id_] if inline is None else self._upsert(inline)
        now = time.time()
        body["rate_limit"] = rate_limit(body["provider"], body.get("rate_limit"))
        body["stream_id"] = body["stream_id"].lower()
        duration_s = self._random.uniform(self._settings.backfill_min_s, self._settings.backfill_max_s)
        sync = Sync(
            credential=credential, backfill=Backfill(duration_s), created_at=now, updated_at=now, **body
        )
        sync.settle(now)
        self._store.syncs.add(sync)
        return self._created(self._views.encode_sync(sync, now))

    def _list_syncs(self, request: Request, _: str) -> Response:
        query = request.query()
        now = time.time()
        return self._listed(
            self._views.encode_sync(sync, now)
            for sync in self._store.syncs.with_metadata(metadata_filter(query))
            if self._is_wanted(sync, query, now)
        )

    def _get_sync(self, _request: Request, id_: str) -> Response:
        return self._found(self._views.encode_sync(self._sync(id_), time.time()))

    def _update_sync(self, request: Request, id_: str) -> Response:
        sync = self._sync(id_)
        body = read_body(request)
        errors = field_errors(body, SYNC_UPDATE)
        errors |= {name: ["cannot be changed"] for name in body if name in SYNC_IMMUTABLE}
        errors = errors or collection_errors(body.get("collection_ids", []), sync.provider)
        if errors:
            raise invalid(errors)
        if "metadata" in body:
            self._store.syncs.replace_metadata(sync, body.pop("metadata"))
        if "rate_limit" in body:
            body["rate_limit"] = rate_limit(sync.provider, body["rate_limit"])
        assign(sync, body)
        sync.settle(sync.updated_at)
        return self._found(self._views.encode_sync(sync, sync.updated_at))

    def _delete_sync(self, _request: Request, id_: str) -> Response:
        sync = self._sync(id_)
        self._store.syncs.remove(sync)
        return self._deleted(sync.id)

    def _sync(self, id_: str) -> Sync:
        if (sync := self._store.syncs.get(id_)) is None:
            raise not_found("sync")
        return sync

    def _sync_errors(self, body: JsonObject) -> FieldErrors:
        errors = field_errors(body, SYNC)
        if ("credential" in body) == ("credential_id" in body):
            errors["credential"] = ["exactly one of credential and credential_id is required"]
        if errors:
            return errors
        if body["stream_id"].lower() not in self._store.streams:
            errors["stream_id"] = ["does not exist"]
        return errors | collection_errors(body["collection_ids"], body["provider"]) | self._owner_errors(body)

    def _owner_errors(self, body: JsonObject) -> FieldErrors:
        if "credential" in body:
            errors = provider_errors(body["credential"], body["provider"])
            return {"credential": errors} if errors else {}
        credential = self._store.credentials.get(body["credential_id"].lower())
        if credential is None:
            return {"credential_id": ["does not exist"]}
        return (
            {} if credential.provider == body["provider"] else {"credential_id": ["is of another provider"]}
        )

    def _is_wanted(self, sync: Sync, query: dict[str, str], now: float) -> bool:
        health = query.get("health.status")
        return (
            sync.provider == query.get("provider", sync.provider)
            and sync.stream_id == query.get("stream_id", sync.stream_id).lower()
            and sync.name == query.get("name", sync.name)
            and (health is None or self._views.health_status(sync, now) == NEW_WORDS.get(health, health))
        )

    # Answers

    def _created(self, body: bytes) -> Response:
        return Response(self._settings.create_status, body)

    def _found(self, body: bytes) -> Response:
        return Response(200, body)

    def _listed(self, bodies: Iterable[bytes]) -> Response:
        return Response(200, self._views.encode_list(list(bodies)))

    def _deleted(self, id_: str) -> Response:
        return Response(200, self._views.encode({"id": id_, "deleted": True}))


def no_such_endpoint(_request: Request, _: str) -> Response:
    """Refuse a route nobody declared."""
    raise ApiError(404, "Not found: no such endpoint")


def id_in(path: str) -> str:
    """Return what follows the collection in a path."""
    return "".join(path.split("/", 3)[3:]).lower()


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
    except ValueError as error:
        raise ApiError(400, "The metadata parameter is not valid JSON") from error
    if not isinstance(wanted, dict):
        raise ApiError(400, "The metadata parameter must be a JSON object")
    return wanted


def provider_errors(credential: JsonObject, provider: str | None) -> FieldErrors:
    """Say whether the kind of a credential belongs to another provider."""
    owner = provider_of(credential["properties"]["kind"])
    stated = {provider, credential.get("provider")} - {None}
    return {} if stated <= {owner} else {"properties": {"kind": ["is of another provider"]}}


def collection_errors(collection_ids: list[str], provider: str) -> FieldErrors:
    """Say which collections belong to another provider."""
    wrong = [id_ for id_ in collection_ids if id_.partition(":")[0] != provider]
    return (
        {"collection_ids": [f"{id_!r} is not a collection of {provider}" for id_ in wrong]} if wrong else {}
    )


def rate_limit(provider: str, given: JsonObject | None) -> JsonObject | None:
    """Complete a rate limit, or take the provider's."""
    if given is not None:
        return {"max_concurrent_requests": 0, **given}
    default = DEFAULT_RATE_LIMITS.get(provider, OTHER_RATE_LIMIT)
    if default is None:
        return None
    return {"allowed_requests": default[0], "interval": default[1], "max_concurrent_requests": 0}


def assign(resource: Credential | Sync, changes: JsonObject) -> None:
    """Set what a body names and stamp the change."""
    for name, value in changes.items():
        setattr(resource, name, value)
    resource.updated_at = time.time()
