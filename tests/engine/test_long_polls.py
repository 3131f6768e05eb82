"""Long polls are bounded, and keep nobody from being answered."""

import asyncio
import time
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import pytest

from engine.api.long_polls import LongPolls
from engine.errors import TooManyRequestsError

WAIT: dict[str, int] = {"wait_for": 60_000}


@pytest.fixture
def consumer(api: httpx.Client, stream: str) -> str:
    """The path of what comes next for a consumer of an empty stream."""
    return (
        f"/v1/http-consumers/{api.post('/v1/http-consumers', json={'stream_id': stream}).json()['id']}/next"
    )


async def until_refused(clients: httpx.AsyncClient, path: str) -> tuple[httpx.Response, list[Any]]:
    """Begin one poll after the other until one is not left waiting."""
    waiting: list[Any] = []
    while len(waiting) < 200:
        poll = asyncio.ensure_future(clients.get(path, params=WAIT))
        done, _ = await asyncio.wait([poll], timeout=0.01)
        waiting.append(poll)
        done = {each for each in waiting if each.done()}
        if done:
            return done.pop().result(), [each for each in waiting if not each.done()]
    raise AssertionError("none was refused")


def test_one_organisation_cannot_take_all_places(
    api: httpx.Client, other: httpx.Client, server: str, consumer: str
) -> None:
    """The poll too many is told when to come again; whoever else asks is answered at once."""

    async def poll() -> tuple[httpx.Response, float]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=server, headers=api.headers, limits=limits, timeout=90) as many:
            refused, waiting = await until_refused(many, consumer)
            began = time.monotonic()
            answer = await asyncio.to_thread(other.get, "/v1/streams")
            took_s = time.monotonic() - began
            assert answer.status_code == 200
            while len(waiting) > 50:  # they were asked for at the same moment
                _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                waiting = [*pending]
            assert len(waiting) == 50
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return refused, took_s

    refused, took_s = asyncio.run(poll())

    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert set(refused.json()) == {"summary"}
    assert took_s < 5
    assert api.get(consumer).status_code == 200  # nobody waits: no place is needed


def test_places_are_given_back() -> None:
    """Whatever ends a poll; and each organisation has places of its own."""
    polls, ours, theirs = LongPolls(per_organization=1, altogether=2), uuid4(), uuid4()

    for _ in range(3):
        with pytest.raises(ValueError, match="gone"), polls.waiting(ours):
            raise ValueError("gone")
    with polls.waiting(ours):
        with pytest.raises(TooManyRequestsError), polls.waiting(ours):
            pass
        with polls.waiting(theirs), pytest.raises(TooManyRequestsError), polls.waiting(uuid4()):
            pass


@pytest.mark.parametrize(("count", "pause_s"), [(1, 0.5), (50, 0.5), (400, 4.0)])
def test_many_look_less_often(count: int, pause_s: float) -> None:
    """All together ask the database so often at most."""
    polls = LongPolls(per_organization=count)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(polls.waiting(uuid4()))
        assert polls.longest_pause_s == pause_s
