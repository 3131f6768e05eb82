"""The provider for large runs lists, changes and tells as Stripe does."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

KEY = "sk_test_of_the_bulk_stripe"


@pytest.fixture(scope="module")
def url(start_peer: Callable[..., str]) -> str:
    return start_peer("bulk_stripe.py", "--records", "250")


@pytest.fixture
def stripe(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=10) as client:
        yield client


def pages(stripe: httpx.Client, path: str) -> Iterator[list[dict[str, Any]]]:
    after: dict[str, str] = {}
    while True:
        page = stripe.get(path, params={"limit": "100", **after}).raise_for_status().json()
        yield page["data"]
        if not page["has_more"]:
            return
        after = {"starting_after": page["data"][-1]["id"]}


def test_lists_what_was_not_deleted_newest_first(stripe: httpx.Client) -> None:
    listed = [each for page in pages(stripe, "/v1/customers") for each in page]
    created = [each["created"] for each in listed]
    assert created == sorted(set(created), reverse=True)
    gone, changed = listed[99]["id"], listed[5]["id"]
    new = stripe.post("/v1/customers", json={"name": "New"}).json()
    stripe.post(f"/v1/customers/{changed}", json={"name": "Changed"})
    stripe.delete(f"/v1/customers/{gone}")

    now = {each["id"]: each for page in pages(stripe, "/v1/customers") for each in page}

    assert set(now) == {each["id"] for each in listed} - {gone} | {new["id"]}
    assert now[changed]["name"] == "Changed"
    assert stripe.get(f"/v1/customers/{changed}").json() == now[changed]
    assert stripe.get(f"/v1/customers/{gone}").status_code == 404
    events = [(each["type"], each["data"]["object"]["id"]) for each in next(pages(stripe, "/v1/events"))]
    assert events == [
        ("customer.deleted", gone),
        ("customer.updated", changed),
        ("customer.created", new["id"]),
    ]


def test_tells_of_a_single_one_that_is_left(stripe: httpx.Client) -> None:
    last, before = [each["id"] for page in pages(stripe, "/v1/customers") for each in page][:-3:-1]
    before_that = [each["id"] for page in pages(stripe, "/v1/customers") for each in page][-3]

    page = stripe.get("/v1/customers", params={"limit": "1", "starting_after": before_that}).json()

    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([before], True)
    assert last != before


def test_lists_what_never_changes(stripe: httpx.Client) -> None:
    listed = [each for page in pages(stripe, "/v1/charges") for each in page]

    assert len({each["id"] for each in listed}) == len(listed) == 250
    assert {each["object"] for each in listed} == {"charge"}


def test_keys_have_accounts_of_their_own_and_are_counted(stripe: httpx.Client, url: str) -> None:
    mine = stripe.get("/v1/account").json()["id"]
    other = stripe.get("/v1/account", headers={"Authorization": "Bearer sk_test_another"}).json()["id"]
    assert mine != other
    assert len(httpx.get(f"{url}/_requests").json()[other]) == 1
    assert httpx.get(f"{url}/_most_under_way").json()[other] == 1
    assert stripe.get("/v1/account", headers={"Authorization": "Bearer pk_1"}).status_code == 401
