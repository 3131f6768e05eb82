"""Keeps a set of processes running until the block ends."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from worker.supervisor.child import POLL_S, Child, describe_status
from worker.supervisor.ending import end_all
from worker.supervisor.logfile import trim
from worker.supervisor.probes import Probe, is_ready
from worker.supervisor.restarts import failures_in_a_row, is_crash_loop, is_worth_a_line, restart_delay_s
from worker.supervisor.spec import ProcessSpec, dependents

SLOW_AFTER_S: Final = 30.0
TRIM_EVERY_S: Final = 5.0
GRACE_S: Final = 5.0

Report = Callable[[str], None]


class Supervisor:
    """`async with` it: inside the block its processes run, after the block none of them is left."""

    def __init__(
        self, specs: Sequence[ProcessSpec], *, logs: Path, report: Report, grace_s: float = GRACE_S
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._dependents = dependents(specs)
        self._logs = logs
        self._report = report
        self._grace_s = grace_s
        self._ready = {spec.name: asyncio.Event() for spec in specs}
        self._children: dict[str, Child] = {}
        self._last_words: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tasks = {asyncio.create_task(self._keep(spec)) for spec in self._specs.values()}
        self._tasks.add(asyncio.create_task(self._trim_logs()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # `watch` raises what they raise
        await end_all(self._children, self._dependents, grace_s=self._grace_s, report=self._report)

    async def all_ready(self) -> None:
        """Wait until every process has been ready once."""
        await self._are_ready(self._specs)

    def not_ready(self) -> list[str]:
        """The processes that have not been ready yet."""
        return [name for name, event in self._ready.items() if not event.is_set()]

    async def watch(self) -> NoReturn:
        """Wait for ever; raises if the supervisor itself breaks."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        raise AssertionError("the task that trims the logs has no end")

    def pid_of(self, name: str) -> int | None:
        """The process's id, while it runs."""
        child = self._children.get(name)
        return child.pid if child else None

    def pids(self) -> dict[str, int]:
        """The ids of all processes that run now, by name."""
        return {name: child.pid for name, child in self._children.items()}

    async def _keep(self, spec: ProcessSpec) -> None:
        await self._are_ready(spec.after)
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            trouble = await self._run(spec)
            if trouble is None:
                return
            failures = failures_in_a_row(failures, lived_s=loop.time() - began)
            self._report_trouble(spec.name, trouble, failures)
            await asyncio.sleep(restart_delay_s(failures))

    async def _run(self, spec: ProcessSpec) -> str | None:
        """Run it to its end; returns what was wrong with that, or None when it had finished its job."""
        try:
            child = self._children[spec.name] = Child(spec, self._log_of(spec.name))
        except OSError as exc:
            return f"could not be started ({exc})"
        watch = asyncio.create_task(self._note_when_ready(spec))
        try:
            status = await child.ended()
        finally:
            watch.cancel()
        del self._children[spec.name]
        if spec.runs_once and status == 0:
            self._ready[spec.name].set()
            return None
        self._last_words[spec.name] = child.last_words()
        return f"ended with {describe_status(status)}"

    async def _note_when_ready(self, spec: ProcessSpec) -> None:
        if spec.runs_once:
            return
        if spec.ready is not None:
            await self._answers(spec.name, spec.ready)
        self._ready[spec.name].set()

    async def _answers(self, name: str, probe: Probe) -> None:
        loop = asyncio.get_running_loop()
        slow_at = loop.time() + SLOW_AFTER_S
        while not await is_ready(probe):
            await asyncio.sleep(POLL_S)
            if loop.time() > slow_at:
                slow_at += SLOW_AFTER_S
                self._report(f"{name} runs but does not answer at {probe} yet; see {self._log_of(name)}")

    def _report_trouble(self, name: str, trouble: str, failures: int) -> None:
        if is_crash_loop(failures):
            words = self._last_words.get(name) or "nothing"
            trouble = f"keeps dying, {failures} times in a row; this time it {trouble} and said: {words}"
        if is_worth_a_line(failures):
            self._report(f"{name} {trouble}; starting it again. Its log: {self._log_of(name)}")

    async def _are_ready(self, names: Iterable[str]) -> None:
        for name in names:
            await self._ready[name].wait()

    async def _trim_logs(self) -> None:
        while True:
            for name in self._specs:
                trim(self._log_of(name))
            await asyncio.sleep(TRIM_EVERY_S)

    def _log_of(self, name: str) -> Path:
        return self._logs / f"{name}.log"
