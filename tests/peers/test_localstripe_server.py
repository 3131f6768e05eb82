"""The Stripe-compatible server that the end-to-end tests read from."""

from collections.abc import Callable, Iterator

import httpx
import pytest


@pytest.fixture(scope="module")
def stripe(start_peer: Callable[..., str]) -> Iterator[httpx.Client]:
    """Give a client of a server with 25 customers."""
    url = start_peer("localstripe_server.py", "--customers", "25", "--subscribers", "10")
    with httpx.Client(base_url=url, headers={"authorization": "Bearer sk_test_123456"}) as client:
        yield client


@pytest.mark.parametrize(
    ("collection", "count"),
    [
        ("customers", 25),
        ("products", 5),
        ("plans", 5),
        ("subscriptions", 10),
        ("invoices", 10),
        ("payment_intents", 10),
        ("charges", 20),
    ],
)
def test_is_filled(stripe: httpx.Client, collection: str, count: int) -> None:
    """What was asked for is there from the start."""
    answer = stripe.get(f"/v1/{collection}", params={"limit": 100})

    assert len(answer.json()["data"]) == count


def test_pages_by_cursor(stripe: httpx.Client) -> None:
    """Every customer is read once, page by page."""
    seen: list[str] = []
    while True:
        cursor = {"starting_after": seen[-1]} if seen else {}
        page = stripe.get("/v1/customers", params={"limit": "10", **cursor}).json()
        seen += [customer["id"] for customer in page["data"]]
        if not page["has_more"]:
            break

    assert len(seen) == len(set(seen)) == 25


def test_takes_new_customers(stripe: httpx.Client) -> None:
    """The server can be written to like the original."""
    answer = stripe.post("/v1/coupons", data={"id": "spring", "duration": "once", "percent_off": "10"})

    assert answer.status_code == 200
    assert stripe.get("/v1/coupons/spring").json()["percent_off"] == 10


def test_refuses_other_keys(stripe: httpx.Client) -> None:
    """A key that is not a secret key gets 401."""
    answer = stripe.get("/v1/customers", headers={"authorization": "Bearer wrong"})

    assert answer.status_code == 401
