"""The collector: what jobs in the event loop find is recorded by a thread, in batches, as it arrives."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.support.rows import a_claim, a_connection, a_tenant
from worker.queue.record import Result
from worker.queue.verdict import Verdict
from worker.steps.collector import Collector, Emit, Job


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


def a_result(did: str) -> Result:
    return a_claim(a_connection(a_tenant())), Verdict(did=did, why="x")


def emitting(*named: str) -> Job:
    async def job(emit: Emit) -> None:
        for did in named:
            emit([a_result(did)])

    return job


def dids(results: list[Result]) -> list[str]:
    return sorted(verdict.did for _, verdict in results)


def test_results_share_a_batch(loop: asyncio.AbstractEventLoop) -> None:
    """What ends at about the same time is recorded with one commit, and nothing twice."""
    collector = Collector(loop)
    collector.start([emitting("a"), emitting("b", "c"), emitting()])

    batches = list(collector.batches())

    assert len(batches) == 1
    assert dids(batches[0]) == ["a", "b", "c"]


def test_result_does_not_wait_for_the_slowest(loop: asyncio.AbstractEventLoop) -> None:
    """A call that hangs holds up nobody: what has arrived is handed out before it."""
    is_recorded = asyncio.Event()

    async def slow(emit: Emit) -> None:
        await is_recorded.wait()
        emit([a_result("slow")])

    collector = Collector(loop)
    collector.start([slow, emitting("quick")])
    batches = collector.batches()

    assert dids(next(batches)) == ["quick"]
    loop.call_soon_threadsafe(is_recorded.set)
    assert [dids(batch) for batch in batches] == [["slow"]]


def test_more_jobs_may_start_on_the_way(loop: asyncio.AbstractEventLoop) -> None:
    """Rows that go on with their next step are waited for too."""
    collector = Collector(loop)
    collector.start([emitting("first")])
    seen = []

    for batch in collector.batches():
        seen += dids(batch)
        if seen == ["first"]:
            collector.start([emitting("next")])

    assert seen == ["first", "next"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_job_that_breaks_ends_too(loop: asyncio.AbstractEventLoop) -> None:
    """A job that raises costs the others nothing, and the iteration still ends."""
    loop.call_soon_threadsafe(loop.set_exception_handler, lambda _loop, _context: None)

    async def broken(_emit: Emit) -> None:
        raise KeyError("mistake")

    collector = Collector(loop)
    collector.start([broken, emitting("fine")])

    assert [dids(batch) for batch in collector.batches()] == [["fine"]]


def test_closing_ends_what_still_runs(loop: asyncio.AbstractEventLoop) -> None:
    """Whoever stops iterating leaves no job behind that could still send anything."""
    did: list[str] = []
    has_begun = threading.Event()

    async def endless(_emit: Emit) -> None:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            did.append("ended")

    collector = Collector(loop)
    collector.start([endless])
    assert has_begun.wait(10)

    collector.close()

    assert did == ["ended"]


def test_nothing_to_do_ends_at_once(loop: asyncio.AbstractEventLoop) -> None:
    """Without jobs there are no batches."""
    assert list(Collector(loop).batches()) == []
