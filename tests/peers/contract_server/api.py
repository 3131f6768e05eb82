"""Everything below /v1: who may ask, and which endpoint answers."""

from collections.abc import Callable
from hmac import compare_digest
from random import Random
from typing import Final, NamedTuple

from .answers import Answers, Handler
from .credentials import CredentialEndpoints
from .errors import ApiError
from .store import Store
from .streams import StreamEndpoints
from .syncs import SyncEndpoints
from .validation import JsonObject
from .views import Views
from .wire import Request, Response

UNROUTED: Final = "unrouted"


class Settings(NamedTuple):
    """How the API behaves when nothing goes wrong."""

    token: str
    create_status: int = 200
    backfill_min_s: float = 2.0
    backfill_max_s: float = 6.0
    seed: int = 0
    has_feed: bool = False


class ManagementApi:
    """Answers requests below /v1."""

    def __init__(self, settings: Settings, store: Store, views: Views) -> None:
        self._token = settings.token.encode()
        self._views = views
        answers = Answers(views, settings.create_status)
        syncs = SyncEndpoints(store, views, answers, backfill_times(settings), has_feed=settings.has_feed)
        self._handlers: dict[str, Handler] = {
            **StreamEndpoints(store, views, answers).handlers(),
            **CredentialEndpoints(store, views, answers).handlers(),
            **syncs.handlers(),
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
        if not compare_digest(token.encode(), self._token):
            raise ApiError(401, "Unknown or expired token")


def backfill_times(settings: Settings) -> Callable[[], float]:
    """Return a function that draws how long the next backfill takes."""
    random = Random(f"backfills {settings.seed}")  # noqa: S311 - repeatable, nothing to guess
    return lambda: random.uniform(settings.backfill_min_s, settings.backfill_max_s)


def no_such_endpoint(_request: Request, _: str) -> Response:
    """Refuse a route nobody declared."""
    raise ApiError(404, "Not found: no such endpoint")


def id_in(path: str) -> str:
    """Return what follows the collection in a path."""
    return "".join(path.split("/", 3)[3:]).lower()
