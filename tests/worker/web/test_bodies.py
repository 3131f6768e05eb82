"""Bodies of unknown senders: bounded each, and bounded together."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from worker.web import bodies
from worker.web.answers import Refusal
from worker.web.bodies import MAX_BODY, SMALL_BODY, Bodies


def read(reader: Bodies, *chunks: bytes, ends: bool = True) -> bytes:
    """Read a body that arrives in these chunks."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append({"type": "http.request", "body": b""} if ends else {"type": "http.disconnect"})

    async def receive() -> Any:
        return messages.pop(0)

    return asyncio.run(reader.read(Request({"type": "http"}, receive)))


def test_body_is_read_as_it_came() -> None:
    """The bytes of all chunks, up to the limit."""
    assert read(Bodies(), b"a", b"", b"b" * (MAX_BODY - 1)) == b"a" + b"b" * (MAX_BODY - 1)


def test_too_large_body_is_refused() -> None:
    """One byte more than the limit is 413."""
    with pytest.raises(Refusal) as caught:
        read(Bodies(), b"a" * MAX_BODY, b"b")

    assert caught.value.status == 413


def test_many_large_bodies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """When much is held already, a large body is 503 and a small one is read."""
    monkeypatch.setattr(bodies, "MOST_HELD", 0)

    with pytest.raises(Refusal) as caught:
        read(Bodies(), b"a" * SMALL_BODY, b"b")

    assert caught.value.status == 503
    assert read(Bodies(), b"a" * SMALL_BODY) == b"a" * SMALL_BODY


@pytest.mark.parametrize("size", [10, MAX_BODY + 1])
def test_room_is_given_back(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A body that was read, refused or broken off counts no longer."""
    monkeypatch.setattr(bodies, "MOST_HELD", 2 * MAX_BODY)
    reader = Bodies()

    for ends in (True, False) * 3:
        if size > MAX_BODY or not ends:
            with pytest.raises(Refusal):
                read(reader, b"a" * size, ends=ends)
        else:
            read(reader, b"a" * size, ends=ends)

    assert read(reader, b"a" * MAX_BODY) == b"a" * MAX_BODY
