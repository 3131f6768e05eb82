"""A shop that changes its Stripe account at random, by Stripe's own SDK."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import requests
import stripe

KEY: Final = "sk_test_12345"
SERVICES: Final = {
    "stripe:charge": "charges",
    "stripe:coupon": "coupons",
    "stripe:customer": "customers",
    "stripe:invoice": "invoices",
    "stripe:invoiceitem": "invoice_items",
    "stripe:plan": "plans",
    "stripe:product": "products",
    "stripe:refund": "refunds",
    "stripe:subscription": "subscriptions",
    "stripe:tax_rate": "tax_rates",
}
"""Collections that the shop changes, and the SDK's name for each."""
COUPONS: Final = [f"SPRING{number}" for number in range(6)]
"""Few, so that ids that were deleted are used again."""


class Shop:
    """One account. Its customers either subscribe, or come, change and go."""

    def __init__(self, client: stripe.StripeClient, seed: int) -> None:
        self._api: Any = client.v1
        self._draw = random.Random(seed)  # noqa: S311  # chance, not secrets
        self.writes = 0
        self.subscribers = [each["customer"] for each in self.listed("stripe:subscription").values()]
        self.customers = [each for each in self.listed("stripe:customer") if each not in self.subscribers]
        self._plans = list(self.listed("stripe:plan"))
        self._subscriptions = list(self.listed("stripe:subscription"))
        self._coupons, self._products, self._unsold = list[str](), list[str](), list[str]()
        self._rates, self._drafts, self._charges = list[str](), list[str](), list[str]()
        self.lost = list[str]()
        """Customers that were deleted."""

    def listed(self, collection_id: str) -> dict[str, dict[str, Any]]:
        """All objects of a collection, as the SDK pages through them."""
        everything = {"limit": 100} | ({"status": "all"} if collection_id == "stripe:subscription" else {})
        found = getattr(self._api, SERVICES[collection_id]).list(params=everything)
        return {each.id: each.to_dict() for each in found.auto_paging_iter()}

    def change(self, times: int) -> None:
        """So many writes, whatever comes to mind and is possible."""
        until = self.writes + times
        while self.writes < until:
            self.writes += self._draw.choice(self._acts)()

    def rename(self, customer: str, name: str) -> None:
        self._api.customers.update(customer, params={"name": name, "metadata": {"was": name}})

    @property
    def _acts(self) -> list[Callable[[], bool]]:
        """As often as they stand here. Each says whether it was possible."""
        return [
            *[self._welcome, self._rename, self._rename] * 3,
            *[self._lose] * 2,
            *[self._launch, self._rename_product, self._drop_product],
            *[self._offer, self._label_plan, self._withdraw_plan],
            *[self._print_coupon, self._note_coupon, self._tear_coupon],
            *[self._subscribe, self._change_subscription, self._cancel],
            *[self._draft, self._describe, self._pay, self._discard, self._add_item],
            *[self._charge, self._refund, self._tax, self._change_tax],
        ]

    def _welcome(self) -> bool:
        params = {"name": self._name(), "email": f"{self._name()}@example.com", "metadata": {"by": "sdk"}}
        self.customers.append(self._api.customers.create(params=params).id)
        return True

    def _rename(self) -> bool:
        return self._with(self.customers, lambda each: self.rename(each, self._name()))

    def _lose(self) -> bool:
        def lose(customer: str) -> None:
            self._api.customers.delete(customer)
            self.lost.append(customer)

        return self._without(self.customers, lose)

    def _launch(self) -> bool:
        params = {"name": self._name(), "metadata": {"by": "sdk"}}
        self._products.append(self._api.products.create(params=params).id)
        return True

    def _rename_product(self) -> bool:
        name = {"name": self._name()}
        return self._with(self._products, lambda each: self._api.products.update(each, params=name))

    def _drop_product(self) -> bool:
        return self._without(self._products, self._api.products.delete)

    def _offer(self) -> bool:
        """A plan brings a product of its own, so that no plan's product is ever missing."""
        params = {"currency": "eur", "interval": "month", "product": {"name": self._name()}}
        self._unsold.append(self._api.plans.create(params=params | {"amount": self._amount()}).id)
        return True

    def _label_plan(self) -> bool:
        label = {"nickname": self._name()}
        return self._with(self._plans, lambda each: self._api.plans.update(each, params=label))

    def _withdraw_plan(self) -> bool:
        return self._without(self._unsold, self._api.plans.delete)

    def _print_coupon(self) -> bool:
        def create(coupon: str) -> None:
            params = {"id": coupon, "percent_off": 12.5, "duration": "once"}
            self._api.coupons.create(params=params)
            self._coupons.append(coupon)

        return self._with([each for each in COUPONS if each not in self._coupons], create)

    def _note_coupon(self) -> bool:
        note = {"metadata": {"note": self._name()}}
        return self._with(self._coupons, lambda each: self._api.coupons.update(each, params=note))

    def _tear_coupon(self) -> bool:
        return self._without(self._coupons, self._api.coupons.delete)

    def _subscribe(self) -> bool:
        def subscribe(customer: str) -> None:
            items = [{"plan": self._draw.choice(self._plans), "quantity": self._draw.randint(1, 5)}]
            params = {"customer": customer, "items": items}
            self._subscriptions.append(self._api.subscriptions.create(params=params).id)

        return self._with(self.subscribers, subscribe)

    def _change_subscription(self) -> bool:
        params = self._draw.choice([{"metadata": {"note": self._name()}}, {"cancel_at_period_end": True}])
        return self._with(
            self._subscriptions, lambda each: self._api.subscriptions.update(each, params=params)
        )

    def _cancel(self) -> bool:
        return self._without(self._subscriptions, self._api.subscriptions.cancel)

    def _draft(self) -> bool:
        def draft(subscription: str) -> None:
            customer = self._api.subscriptions.retrieve(subscription).customer
            params = {"customer": customer, "subscription": subscription}
            self._drafts.append(self._api.invoices.create(params=params).id)

        return self._with(self._subscriptions, draft)

    def _describe(self) -> bool:
        params = {"description": self._name()}
        return self._with(self._drafts, lambda each: self._api.invoices.update(each, params=params))

    def _pay(self) -> bool:
        return self._without(self._drafts, self._api.invoices.pay)

    def _discard(self) -> bool:
        return self._without(self._drafts, self._api.invoices.delete)

    def _add_item(self) -> bool:
        def add(customer: str) -> None:
            params = {"customer": customer, "amount": self._amount(), "currency": "eur"}
            self._api.invoice_items.create(params=params)

        return self._with(self.subscribers, add)

    def _charge(self) -> bool:
        def charge(customer: str) -> None:
            params = {"customer": customer, "amount": self._amount(), "currency": "eur"}
            self._charges.append(self._api.charges.create(params=params).id)

        return self._with(self.subscribers, charge)

    def _refund(self) -> bool:
        return self._without(self._charges, lambda each: self._api.refunds.create(params={"charge": each}))

    def _tax(self) -> bool:
        params = {"display_name": self._name(), "inclusive": False, "percentage": self._draw.randint(1, 25)}
        self._rates.append(self._api.tax_rates.create(params=params).id)
        return True

    def _change_tax(self) -> bool:
        params = {"description": self._name()}
        return self._with(self._rates, lambda each: self._api.tax_rates.update(each, params=params))

    def _with(self, ids: list[str], act: Callable[[str], object]) -> bool:
        """Do it with one of them, if there is any."""
        if ids:
            act(self._draw.choice(ids))
        return bool(ids)

    def _without(self, ids: list[str], act: Callable[[str], object]) -> bool:
        """The same, and it is no longer one of them."""

        def last_act(chosen: str) -> None:
            act(chosen)
            ids.remove(chosen)

        return self._with(ids, last_act)

    def _name(self) -> str:
        return f"n{self._draw.randrange(10**9)}"

    def _amount(self) -> int:
        return self._draw.randint(100, 10_000)


@contextmanager
def shop(url: str, seed: int) -> Iterator[Shop]:
    """A shop whose SDK knows no other address, tells nothing about itself and asks once."""
    addresses = dict.fromkeys(("api", "connect", "files", "meter_events"), url)
    with requests.Session() as session, patch.object(stripe, "enable_telemetry", new=False):
        session.trust_env = False
        client = stripe.StripeClient(
            KEY,
            base_addresses=addresses,
            max_network_retries=0,
            http_client=stripe.RequestsClient(session=session),
        )
        yield Shop(client, seed)
