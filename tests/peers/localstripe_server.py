"""Run localstripe, a Stripe-compatible server by other people, on 127.0.0.1 and filled with customers.

Its own command listens on every interface and writes its whole store to one shared file at each change;
started this way it does neither.
"""

import argparse
import asyncio
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiohttp import web
from localstripe import resources, server  # type: ignore[import-untyped]  # published without types

PRICES: Final = {"Basic": 900, "Team": 4_900, "Business": 19_900, "Archive": 500, "Support": 9_900}
CARD: Final = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2040", "cvc": "123"}


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = parser().parse_args(argv)
    asyncio.run(serve(options))


async def serve(options: argparse.Namespace) -> None:
    """Fill the store, listen, say where, and stop at once when asked to."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    resources.Store.dump_to_disk = keep_in_memory
    random.seed(options.seed)
    fill(options.customers, options.subscribers)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=1024).start()
    if options.port_file is not None:
        write_port(options.port_file, runner.addresses[0][1])
    await stopped.wait()
    await runner.cleanup()


def keep_in_memory(_store: object) -> None:
    """Stand in for the writing of the store to disk."""


def fill(customers: int, subscribers: int) -> None:
    """Create products with a plan each, and customers, the first of whom subscribe and also bought once."""
    plans = [create_plan(name, amount) for name, amount in PRICES.items()]
    for number in range(customers):
        customer = create_customer(number + 1)
        if number < subscribers:
            subscribe(customer, plans[number % len(plans)])
            resources.Charge._api_create(customer=customer, amount=1_000 + number, currency="eur")


def create_plan(name: str, amount: int) -> str:
    """Create a product and its monthly plan, and return the plan's id."""
    product = resources.Product._api_create(name=name)
    plan = resources.Plan._api_create(product=product.id, amount=amount, currency="eur", interval="month")
    return str(plan.id)


def create_customer(number: int) -> str:
    """Create a customer who pays by card, and return the id."""
    card = resources.PaymentMethod._api_create(type="card", card=dict(CARD))
    customer = resources.Customer._api_create(
        name=f"Customer {number}", email=f"customer-{number}@example.com", metadata={"number": str(number)}
    )
    resources.PaymentMethod._api_attach(card.id, customer=customer.id)
    customer._update(invoice_settings={"default_payment_method": card.id})
    return str(customer.id)


def subscribe(customer: str, plan: str) -> None:
    """Create a subscription, which brings an invoice, a payment intent and a charge."""
    resources.Subscription._api_create(customer=customer, items=[{"plan": plan}])


def write_port(port_file: Path, port: int) -> None:
    """Write the port so that a reader sees all of it or nothing."""
    draft = port_file.with_name(f"{port_file.name}.draft")
    draft.write_text(f"{port}\n")
    draft.replace(port_file)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    result.add_argument("--port", type=int, default=0, help="0 takes a free one")
    result.add_argument("--port-file", type=Path, help="gets the port once the server listens")
    result.add_argument("--customers", type=int, default=200, help="how many there are from the start")
    result.add_argument(
        "--subscribers", type=int, default=100, help="how many of them subscribe; each takes longer to create"
    )
    result.add_argument("--seed", type=int, default=0, help="of the ids")
    return result


if __name__ == "__main__":
    main()
