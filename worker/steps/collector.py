"""From the event loop, where the calls run, to the thread of a task, which records what they found."""

import asyncio
import queue
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

from worker.queue.record import Result

SHARED_COMMIT_S: Final = 0.05
"""How long a finished call waits for others to share its commit with."""

Emit = Callable[[Sequence[Result]], None]
Job = Callable[[Emit], Awaitable[None]]
"""Works in the event loop and emits results as it goes."""


class Collector:
    """Runs jobs in an event loop and yields what they emit, gathered over short moments."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._emitted: queue.SimpleQueue[Sequence[Result] | None] = queue.SimpleQueue()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, jobs: Iterable[Job]) -> None:
        """Run these too. To be called from the thread that iterates over the batches."""
        jobs = list(jobs)
        self._running += len(jobs)
        self._loop.call_soon_threadsafe(self._spawn, jobs)

    def batches(self) -> Iterator[list[Result]]:
        """Everything that the jobs emit, until all of them have ended."""
        while self._running:
            first = self._emitted.get()
            if first is None:
                self._running -= 1
                continue
            batch = list(first)
            if self._running:
                time.sleep(SHARED_COMMIT_S)
            yield batch + self._drained()

    def close(self) -> None:
        """End the jobs that are still running, and wait until they have: nothing is sent after that."""
        if self._running:
            asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()

    async def _cancel(self) -> None:
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _drained(self) -> list[Result]:
        batch: list[Result] = []
        while True:
            try:
                emitted = self._emitted.get_nowait()
            except queue.Empty:
                return batch
            if emitted is None:
                self._running -= 1
            else:
                batch += emitted

    def _spawn(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            task = self._loop.create_task(self._run(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Job) -> None:
        try:
            await job(self._emitted.put)
        finally:
            self._emitted.put(None)
