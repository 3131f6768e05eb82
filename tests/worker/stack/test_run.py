"""Waiting for whatever comes first."""

import asyncio

import pytest

from worker.stack import first_of


async def soon(result: str) -> str:
    return result


async def never(cancelled: list[str]) -> str:
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append("cancelled")
    return "never"


async def broken() -> str:
    raise RuntimeError("broken")


def test_the_first_result_wins() -> None:
    """What finishes first is returned, and the rest is cancelled before that."""
    cancelled: list[str] = []

    assert asyncio.run(first_of(never(cancelled), soon("done"))) == "done"
    assert cancelled == ["cancelled"]


def test_of_several_the_first_named_wins() -> None:
    """The order of the arguments decides between those that finish together."""
    assert asyncio.run(first_of(soon("one"), soon("two"))) == "one"


def test_a_failure_is_raised() -> None:
    """An exception is not lost among the cancelled."""
    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(first_of(broken(), never([])))
