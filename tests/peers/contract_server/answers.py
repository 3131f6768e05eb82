"""The four ways a request succeeds."""

from collections.abc import Callable, Iterable

from .views import Views
from .wire import Request, Response

Handler = Callable[[Request, str], Response]


class Answers:
    """Makes answers of resources that are JSON already."""

    def __init__(self, views: Views, create_status: int) -> None:
        self._views = views
        self._create_status = create_status

    def created(self, body: bytes) -> Response:
        """Answer a POST."""
        return Response(self._create_status, body)

    def found(self, body: bytes) -> Response:
        """Answer a GET or a PATCH."""
        return Response(200, body)

    def listed(self, bodies: Iterable[bytes]) -> Response:
        """Answer with a list."""
        return Response(200, self._views.encode_list(list(bodies)))

    def page(self, bodies: Iterable[bytes], next_cursor: str, *, has_more: bool) -> Response:
        """Answer with a part of a list, and where the next part begins."""
        return Response(200, self._views.encode_page(list(bodies), next_cursor, has_more=has_more))

    def deleted(self, id_: str) -> Response:
        """Answer a DELETE."""
        return Response(200, self._views.encode({"id": id_, "deleted": True}))
