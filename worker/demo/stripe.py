"""Run as a module: localstripe, a Stripe-compatible server by other people, on loopback and with customers.

Its own command listens on every interface and writes its whole store to one shared file at each change;
started this way it does neither.
"""

import argparse
from typing import Final

from aiohttp import web
from localstripe import resources, server  # type: ignore[import-untyped]  # published without types

CARD: Final = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2040", "cvc": "123"}
PRODUCTS: Final = {"Basic": 900, "Team": 4_900, "Business": 19_900}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--customers", type=int, default=300)
    parser.add_argument("--subscribers", type=int, default=50, help="how many of the customers subscribe")
    options = parser.parse_args()
    resources.Store.dump_to_disk = _keep_in_memory

    async def seed(
        _app: web.Application,
    ) -> None:  # in the server's loop: each new object sends webhooks there
        fill(options.customers, options.subscribers)

    server.app.on_startup.append(seed)
    web.run_app(server.app, host="127.0.0.1", port=options.port, access_log=None, print=None)


def fill(customers: int, subscribers: int) -> None:
    """Make products with plans, and customers; some subscribe, which brings invoices and charges."""
    plans = [_make_plan(name, amount) for name, amount in PRODUCTS.items()]
    for number in range(customers):
        customer = resources.Customer._api_create(
            name=f"Customer {number + 1}", email=f"customer-{number + 1}@example.com"
        )
        if number < subscribers:
            _subscribe(customer, plans[number % len(plans)])


def _make_plan(name: str, amount: int) -> str:
    product = resources.Product._api_create(name=name)
    plan = resources.Plan._api_create(product=product.id, amount=amount, currency="eur", interval="month")
    return str(plan.id)


def _subscribe(customer: resources.Customer, plan: str) -> None:
    card = resources.PaymentMethod._api_create(type="card", card=dict(CARD))
    resources.PaymentMethod._api_attach(card.id, customer=customer.id)
    customer._update(invoice_settings={"default_payment_method": card.id})
    resources.Subscription._api_create(customer=customer.id, items=[{"plan": plan}])


def _keep_in_memory(_store: object) -> None:
    """Stands in for the writing of the store to disk."""


if __name__ == "__main__":
    main()
