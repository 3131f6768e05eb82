"""The demo from an empty directory to its verdict."""

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console

from worker.demo.board import Board
from worker.demo.patience import Patience
from worker.demo.progress import TenantStatus, shortcomings, tenant_statuses
from worker.demo.reader import StreamReader
from worker.demo.report import print_failures, print_records, print_verdict
from worker.demo.signups import NAMES, WITH_WRONG_KEY, make_signups, send_all
from worker.stack import Scope, Stack, StackError, first_of, free_port, running, show, stop_requested
from worker.supervisor import HOST, ProcessSpec, TcpOpen

PLANS: Final = Path(__file__).with_name("plans.toml")
START_STILL_S: Final = 40.0
"""The start is given up when no further process has become ready for so long ..."""
SETTLE_STILL_S: Final = 45.0
"""... and the customers when none of them moves and no record arrives."""
LOOK_EVERY_S: Final = 0.5
EVERYTHING: Final = Scope(worker=True, engine=True, redis=True)


async def run_demo(data_dir: Path, *, ends: bool) -> int:
    """Run it; the exit status is 0 when everyone is ready but the customer with the wrong key."""
    _require_localstripe()
    console = Console(markup=False, highlight=False, soft_wrap=True)
    stop = stop_requested()
    port = free_port()

    async def scenario(stack: Stack) -> int:
        status = await _onboard(stack, console)
        if not ends:
            show(stack.config, console)
            console.print("Everything stays up until Ctrl-C.")
            await stop.wait()
        return status

    async def interrupted() -> int:
        await stop.wait()
        return 1 if ends else 0

    console.print("Starting ...")
    async with running(
        data_dir,
        EVERYTHING,
        _environment(port),
        automatic=True,
        afresh=True,
        report=console.print,
        beside=[_stripe(port)],
    ) as stack:
        return await first_of(scenario(stack), interrupted(), stack.supervisor.watch())


async def _onboard(stack: Stack, console: Console) -> int:
    clock = asyncio.get_running_loop().time
    began = clock()
    await _all_ready(stack)
    show(stack.config, console)
    config = stack.config
    async with httpx.AsyncClient(timeout=httpx.Timeout(15.0, connect=3.0), trust_env=False) as client:
        reader = StreamReader(client, config.url_of("engine"), config.value_of("GANGWAY_API_TOKEN"))
        secret = json.loads(config.value_of("GANGWAY_WEBHOOK_SECRETS"))["app"][0]
        await send_all(client, f"{config.url_of('web')}/webhooks/app", secret, make_signups())
        tenants = await first_of(_watch(client, stack, reader, console), reader.read())
    print_records(reader.samples, reader.records.total(), console)
    print_failures(tenants, console)
    wrong = shortcomings(tenants, reader.records, expected=len(NAMES), doomed=WITH_WRONG_KEY)
    print_verdict(tenants, wrong, clock() - began, console)
    return 1 if wrong else 0


async def _watch(
    client: httpx.AsyncClient, stack: Stack, reader: StreamReader, console: Console
) -> list[TenantStatus]:
    """Show the tenants until all are settled and their records read, or nothing has moved for too long."""
    url, token = stack.config.url_of("web"), stack.config.value_of("GANGWAY_OPERATOR_TOKEN")
    patience = Patience[tuple[dict[str, str], int]](SETTLE_STILL_S)
    with Board(console) as board:
        while True:
            caught_up = reader.has_caught_up
            tenants = await tenant_statuses(client, url, token)
            board.update(tenants, reader.records)
            states = {tenant.external_id: tenant.state for tenant in tenants}
            is_over = patience.is_over((states, reader.records.total()))
            if is_over or (caught_up and all(tenant.is_settled for tenant in tenants)):
                return tenants
            await asyncio.sleep(LOOK_EVERY_S)


async def _all_ready(stack: Stack) -> None:
    """Wait for every process. One machine is slower than another: what counts is that they come up."""
    patience = Patience[list[str]](START_STILL_S)
    while late := stack.supervisor.not_ready():
        if patience.is_over(late):
            names = ", ".join(late)
            raise StackError(f"not ready after {START_STILL_S:g} s: {names}; see {stack.config.logs}")
        await asyncio.sleep(LOOK_EVERY_S / 2)


def _environment(stripe_port: int) -> dict[str, str]:
    """Nothing of the operator's own settings: the demo touches no other broker, database or API."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GANGWAY_")}
    return inherited | {
        "GANGWAY_PLANS_FILE": str(PLANS),
        "GANGWAY_REFUSAL_LASTS_S": "3",  # a wrong key is believed soon enough to be watched
        "GANGWAY_ENGINE_PROVIDERS__STRIPE__BASE_URL": f"http://{HOST}:{stripe_port}",
    }


def _stripe(port: int) -> ProcessSpec:
    argv = (sys.executable, "-P", "-m", "worker.demo.stripe", "--port", str(port))
    return ProcessSpec("stripe", argv, dict(os.environ), ready=TcpOpen(port))


def _require_localstripe() -> None:
    if importlib.util.find_spec("localstripe") is None:
        raise StackError("the demo needs localstripe, a Stripe-compatible server; `make demo` installs it")
