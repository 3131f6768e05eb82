"""Reads the bodies of requests whose senders are not known yet, so each and all together are bounded."""

from http import HTTPStatus
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from worker.web.answers import Refusal

MAX_BODY: Final = 1024 * 1024
SMALL_BODY: Final = 64 * 1024
MOST_HELD: Final = 64 * 1024 * 1024


class Bodies:
    """Counts the bytes of all bodies that are being read. Small bodies are read whatever the count says."""

    def __init__(self) -> None:
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """Return the raw body, as signed; refuse one that is too large before it is all read."""
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self._held += len(chunk)
                self._check(len(body))
        except ClientDisconnect:  # nobody reads the answer
            raise Refusal(HTTPStatus.BAD_REQUEST, "body: the connection closed before its end") from None
        finally:
            self._held -= len(body)
        return bytes(body)

    def _check(self, size: int) -> None:
        if size > MAX_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: expected at most {MAX_BODY} bytes")
        if size > SMALL_BODY and self._held > MOST_HELD:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many large bodies at once; send again")
