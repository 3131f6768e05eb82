"""The endpoints of streams."""

import time

from .answers import Answers, Handler
from .bodies import read_body
from .errors import ApiError, invalid, not_found
from .store import Store, Stream, assign
from .validation import STREAM, JsonObject, require
from .views import Views
from .wire import Request, Response


class StreamEndpoints:
    """Streams have a slug that is theirs alone."""

    def __init__(self, store: Store, views: Views, answers: Answers) -> None:
        self._store = store
        self._views = views
        self._answers = answers

    def handlers(self) -> dict[str, Handler]:
        """Name the routes."""
        return {
            "POST /v1/streams": self._create_stream,
            "GET /v1/streams": self._list_streams,
            "GET /v1/streams/{id}": self._get_stream,
            "PATCH /v1/streams/{id}": self._update_stream,
            "DELETE /v1/streams/{id}": self._delete_stream,
        }

    def _create_stream(self, request: Request, _: str) -> Response:
        body = self._stream_body(request)
        now = time.time()
        stream = Stream(body["slug"], created_at=now, updated_at=now)
        self._store.streams[stream.id] = stream
        return self._answers.created(self._views.encode_stream(stream))

    def _list_streams(self, _request: Request, _: str) -> Response:
        return self._answers.listed(
            self._views.encode_stream(stream) for stream in self._store.streams.values()
        )

    def _get_stream(self, _request: Request, id_: str) -> Response:
        return self._answers.found(self._views.encode_stream(self._stream(id_)))

    def _update_stream(self, request: Request, id_: str) -> Response:
        stream = self._stream(id_)
        body = self._stream_body(request, stream)
        assign(stream, body, time.time())
        return self._answers.found(self._views.encode_stream(stream))

    def _delete_stream(self, _request: Request, id_: str) -> Response:
        stream = self._stream(id_)
        if any(sync.stream_id == stream.id for sync in self._store.syncs):
            raise ApiError(422, "The stream still has syncs", {})
        del self._store.streams[stream.id]
        return self._answers.deleted(stream.id)

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
