"""Run a strict, in-memory Management API that follows the contract, for tests and benchmarks.

It listens on 127.0.0.1 only, keeps nothing after its end, and has an operator's view below /_double/.
"""

import argparse
import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from contract_server.api import ManagementApi, Settings
from contract_server.faults import Dice, FaultSettings
from contract_server.service import Double
from contract_server.store import Store, Stream
from contract_server.views import Dialect, Views
from contract_server.wire import Connection


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = parser().parse_args(argv)
    uvloop.run(serve(build(options), options.port, options.port_file))


async def serve(double: Double, port: int, port_file: Path | None) -> None:
    """Listen, say where, and stop at once when asked to."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: Connection(double), "127.0.0.1", port, backlog=1024)
    if port_file is not None:
        write_port(port_file, server.sockets[0].getsockname()[1])
    await stopped.wait()
    server.close()


def write_port(port_file: Path, port: int) -> None:
    """Write the port so that a reader sees all of it or nothing."""
    draft = port_file.with_name(f"{port_file.name}.draft")
    draft.write_text(f"{port}\n")
    draft.replace(port_file)


def build(options: argparse.Namespace) -> Double:
    """Put the server together."""
    store = Store()
    for slug, id_ in options.stream:
        now = time.time()
        stream = Stream(slug, created_at=now, updated_at=now)
        stream.id = id_ or stream.id
        store.streams[stream.id] = stream
    views = Views(Dialect(options.timestamps, options.health, options.extra_fields), store)
    settings = Settings(
        options.token,
        options.create_status,
        options.backfill_min_s,
        options.backfill_max_s,
        options.seed,
        options.changes_feed,
    )
    return Double(ManagementApi(settings, store, views), Dice(faults(options), options.seed), store)


def faults(options: argparse.Namespace) -> FaultSettings:
    """Read the fault settings off the command line."""
    late_commit, late_commit_s = options.late_commit
    return FaultSettings(
        reset=options.reset,
        rate_429=options.rate_429,
        fail_500=options.fail_500,
        late_commit=late_commit,
        lose_reply=options.lose_reply,
        late_commit_s=late_commit_s,
        retry_after=options.retry_after,
        retry_after_s=options.retry_after_s,
        latency_ms=options.latency_ms,
        only=tuple(options.only),
    )


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_server_options(result.add_argument_group("server"))
    add_dialect_options(result.add_argument_group("dialect"))
    add_fault_options(result.add_argument_group("faults", "rates from 0 to 1, drawn per request"))
    return result


def add_server_options(group: argparse._ArgumentGroup) -> None:
    """Declare where it listens and how it behaves."""
    group.add_argument("--port", type=int, default=0, help="0 takes a free one")
    group.add_argument("--port-file", type=Path, help="gets the port once the server listens")
    group.add_argument("--token", default="contract-token", help="the bearer token that is let in")
    group.add_argument("--seed", type=int, default=0, help="of backfill times and faults")
    group.add_argument("--backfill-min-s", type=float, default=2.0, help="shortest initial backfill")
    group.add_argument("--backfill-max-s", type=float, default=6.0, help="longest initial backfill")
    group.add_argument(
        "--stream",
        type=slug_and_id,
        action="append",
        default=[],
        metavar="SLUG[=ID]",
        help="a stream that exists from the start, may be repeated",
    )


def add_dialect_options(group: argparse._ArgumentGroup) -> None:
    """Declare which documented forms the answers take."""
    group.add_argument("--create-status", type=int, choices=(200, 201), default=200, help="answer to POST")
    group.add_argument("--timestamps", choices=("rfc3339", "space"), default="rfc3339", help="their form")
    group.add_argument(
        "--health",
        choices=("initializing", "gen2", "gen1"),
        default="initializing",
        help="initializing: {status, sync_id}, 'initializing' until the backfill is complete; gen2: the same "
        "shape, 'healthy' from the start; gen1: nested with notes, 'warn' until the backfill is complete",
    )
    group.add_argument(
        "--changes-feed",
        action="store_true",
        help="GET /v1/syncs?changed_since=CURSOR&limit=N tells what changed; without it both are ignored",
    )
    group.add_argument("--extra-fields", action="store_true", help="undocumented fields in every object")


def add_fault_options(group: argparse._ArgumentGroup) -> None:
    """Declare what may go wrong."""
    group.add_argument("--latency-ms", type=float, default=0.0, help="before every answer")
    group.add_argument("--fail-500", type=rate, default=0.0, metavar="RATE", help="500, not executed")
    group.add_argument("--reset", type=rate, default=0.0, metavar="RATE", help="TCP reset, not executed")
    group.add_argument("--lose-reply", type=rate, default=0.0, metavar="RATE", help="executed, no answer")
    group.add_argument("--rate-429", type=rate, default=0.0, metavar="RATE", help="429, not executed")
    group.add_argument(
        "--retry-after", choices=("seconds", "date"), default="seconds", help="form of the header"
    )
    group.add_argument("--retry-after-s", type=float, default=1.0, help="how long a 429 asks to wait")
    group.add_argument(
        "--late-commit",
        type=rate_and_seconds,
        default=(0.0, 5.0),
        metavar="RATE:SECONDS",
        help="POST answered 504 at once but executed this much later",
    )
    group.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ROUTE",
        help="restrict faults to a route such as 'POST /v1/syncs', may be repeated",
    )


def rate(text: str) -> float:
    """Read a rate."""
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def rate_and_seconds(text: str) -> tuple[float, float]:
    """Read RATE:SECONDS."""
    first, _, second = text.partition(":")
    return rate(first), float(second)


def slug_and_id(text: str) -> tuple[str, str | None]:
    """Read SLUG[=ID]."""
    slug, _, id_ = text.partition("=")
    return slug, id_.lower() or None


if __name__ == "__main__":
    main()
