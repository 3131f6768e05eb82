"""A stack from its lock to its last process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from rich.console import Console

from worker.settings import STACK_FILE
from worker.stack.board import show
from worker.stack.checks import checked
from worker.stack.configuration import Configuration, configure, forget
from worker.stack.envfile import read_env_file, write_env_file
from worker.stack.errors import StackError
from worker.stack.lock import locked
from worker.stack.ports import choose_ports, remembered_ports
from worker.stack.scope import Environment, Scope, engine_scope, stack_scope
from worker.stack.services import processes
from worker.supervisor import ProcessSpec, Report, Supervisor

T = TypeVar("T")
AskedPorts = Mapping[str, int | None]


@dataclass(frozen=True)
class Stack:
    """A stack whose processes are being kept alive."""

    config: Configuration
    supervisor: Supervisor


async def run_stack(data_dir: Path, ports: AskedPorts, *, automatic: bool) -> None:
    """Run everything that the environment does not name, until Ctrl-C or SIGTERM."""
    environment = set_variables()
    await _serve(data_dir, stack_scope(environment), environment, ports, automatic=automatic)


async def run_engine(data_dir: Path, ports: AskedPorts, *, automatic: bool) -> None:
    """Run the Management API alone, until Ctrl-C or SIGTERM."""
    environment = set_variables()
    await _serve(data_dir, engine_scope(environment), environment, ports, automatic=automatic)


@asynccontextmanager
async def running(
    data_dir: Path,
    scope: Scope,
    environment: Environment,
    *,
    report: Report,
    ports: AskedPorts = MappingProxyType({}),
    automatic: bool,
    afresh: bool = False,
    beside: Sequence[ProcessSpec] = (),
) -> AsyncIterator[Stack]:
    """Inside the block the stack's processes run, and those beside it; the directory is locked."""
    data_dir = _prepared(data_dir)
    with locked(data_dir):
        if afresh:
            forget(data_dir)
        remembered = read_env_file(data_dir / STACK_FILE)
        chosen = await choose_ports(
            scope.servers, asked=ports, remembered=remembered_ports(remembered), automatic=automatic
        )
        config = configure(data_dir, scope, environment=environment, remembered=remembered, ports=chosen)
        for warning in checked(config):
            report(warning)
        write_env_file(config.env_file, config.kept)
        specs = [*beside, *processes(config)]
        async with Supervisor(specs, logs=config.logs, report=report) as supervisor:
            yield Stack(config, supervisor)


def set_variables() -> Environment:
    """The environment without empty variables: to Gangway they are the same as missing ones."""
    return {name: value for name, value in os.environ.items() if value}


def stop_requested() -> asyncio.Event:
    """An event that Ctrl-C, SIGTERM and a closed terminal set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def first_of(*coroutines: Coroutine[Any, Any, T]) -> T:
    """What the first to finish returns or raises; the others are cancelled. Of several, the first named."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        results = [task.result() for task in tasks if task in done]
        return results[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    data_dir: Path, scope: Scope, environment: Environment, ports: AskedPorts, *, automatic: bool
) -> None:
    console = Console(markup=False, highlight=False, soft_wrap=True)
    stop = stop_requested()

    async def announce(stack: Stack) -> None:
        await stack.supervisor.all_ready()
        show(stack.config, console)
        console.print("Ctrl-C ends everything; the next start goes on with the same state.")
        await stop.wait()

    async def obey() -> None:
        await stop.wait()

    console.print("Starting ...")
    async with running(
        data_dir, scope, environment, ports=ports, automatic=automatic, report=console.print
    ) as stack:
        await first_of(announce(stack), obey(), stack.supervisor.watch())
        console.print("Stopping ...")


def _prepared(data_dir: Path) -> Path:
    data_dir = data_dir.expanduser().absolute()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StackError(f"{data_dir}: {exc.strerror}; choose another --data-dir") from exc
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise StackError(f"{data_dir}: not writable by this user; choose another --data-dir")
    return data_dir
