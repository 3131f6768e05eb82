"""Everything on one machine: the whole stack, the engine alone, and the demo."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from worker.settings import default_data_dir

DataDir = Annotated[
    Path | None, typer.Option(help="Where state, secrets and logs live.", show_default=".gangway")
]
WebPort = Annotated[
    int | None, typer.Option(envvar="GANGWAY_WEB_PORT", min=1, max=65535, help="Port of the intake.")
]
EnginePort = Annotated[
    int | None, typer.Option(envvar="GANGWAY_ENGINE_PORT", min=1, max=65535, help="Port of the engine.")
]
FlowerPort = Annotated[
    int | None, typer.Option(envvar="GANGWAY_FLOWER_PORT", min=1, max=65535, help="Port of Flower.")
]
RedisPort = Annotated[
    int | None, typer.Option(envvar="GANGWAY_REDIS_PORT", min=1, max=65535, help="Port of the broker.")
]
Ports = Annotated[
    str | None, typer.Option(help="`auto` chooses free ports once and keeps them.", metavar="auto")
]


def up(
    data_dir: DataDir = None,
    web_port: WebPort = None,
    engine_port: EnginePort = None,
    flower_port: FlowerPort = None,
    redis_port: RedisPort = None,
    ports: Ports = None,
) -> None:
    """Run everything on this machine, supervised; Ctrl-C ends it, the next `up` continues."""
    from worker.stack import StackError, run_stack

    wanted = {"web": web_port, "engine": engine_port, "flower": flower_port, "redis": redis_port}
    try:
        asyncio.run(run_stack(data_dir or default_data_dir(), wanted, automatic=_is_automatic(ports)))
    except StackError as exc:
        sys.exit(str(exc))


def engine(
    data_dir: DataDir = None,
    engine_port: EnginePort = None,
    redis_port: RedisPort = None,
    ports: Ports = None,
) -> None:
    """Run the Management API alone: our engine with its database, its workers and, if need be, a broker."""
    from worker.stack import StackError, run_engine

    wanted = {"engine": engine_port, "redis": redis_port}
    try:
        asyncio.run(run_engine(data_dir or default_data_dir(), wanted, automatic=_is_automatic(ports)))
    except StackError as exc:
        sys.exit(str(exc))


def demo(
    ends: Annotated[bool, typer.Option("--exit", help="End everything when the demo is over.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Emptied at the start.")] = Path(".gangway/demo"),
) -> None:
    """Onboard 25 customers of a Stripe-compatible server, one of them with a wrong key, and watch."""
    from worker.demo import run_demo
    from worker.stack import StackError

    try:
        sys.exit(asyncio.run(run_demo(data_dir, ends=ends)))
    except StackError as exc:
        sys.exit(str(exc))


def _is_automatic(ports: str | None) -> bool:
    if ports not in (None, "auto"):
        raise typer.BadParameter(f"expected auto, got {ports!r}; single ports have options of their own")
    return ports == "auto"
