"""The independent Management API server's optional feed: what changed since a cursor."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

STREAM_ID = "f0f70b52-5243-489c-879b-a1ae3f02abfd"
OPTIONS = ("--stream", f"default={STREAM_ID}", "--backfill-min-s", "0.4", "--backfill-max-s", "0.5")
StartPeer = Callable[..., str]


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": "Bearer contract-token"}, timeout=5.0)


@pytest.fixture
def feed(start_peer: StartPeer) -> Iterator[httpx.Client]:
    """Give a client of a new server that has the feed."""
    with client_of(start_peer("contract_api.py", *OPTIONS, "--changes-feed")) as client:
        yield client


def create(client: httpx.Client, name: str) -> str:
    """Create a sync and return its id."""
    body = {
        "provider": "stripe",
        "stream_id": STREAM_ID,
        "name": name,
        "collection_ids": ["stripe:customer"],
        "credential": {"properties": {"kind": "stripe_key", "secret": f"sk_test_{name}"}},
    }
    return str(client.post("/v1/syncs", json=body).raise_for_status().json()["id"])


def changes(client: httpx.Client, cursor: str = "", **query: Any) -> dict[str, Any]:
    """Ask what changed."""
    answer = client.get("/v1/syncs", params={"changed_since": cursor, **query})
    page: dict[str, Any] = answer.raise_for_status().json()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["data"]]


def test_in_order_of_change(feed: httpx.Client) -> None:
    """A sync that changed again moves to the end, and is told once."""
    first, second = create(feed, "first"), create(feed, "second")
    feed.patch(f"/v1/syncs/{first}", json={"name": "renamed"}).raise_for_status()

    page = changes(feed)

    assert ids(page) == [second, first]
    assert page["data"][1]["name"] == "renamed"
    assert page["has_more"] is False


def test_only_what_is_new(feed: httpx.Client) -> None:
    """After a cursor come the later changes alone; without any, the cursor still holds."""
    create(feed, "before")
    cursor = changes(feed)["next_cursor"]
    later = create(feed, "later")

    page = changes(feed, cursor)

    assert ids(page) == [later]
    assert changes(feed, page["next_cursor"]) == {
        "data": [],
        "next_cursor": page["next_cursor"],
        "has_more": False,
    }


def test_pages(feed: httpx.Client) -> None:
    """Pages of a limit bring every sync once."""
    created = [create(feed, f"number{number}") for number in range(5)]
    told: list[str] = []
    cursor, has_more = "", True
    while has_more:
        page = changes(feed, cursor, limit=2)
        told += ids(page)
        cursor, has_more = page["next_cursor"], page["has_more"]

    assert told == created


def test_deleted(feed: httpx.Client) -> None:
    """A sync that was deleted, or vanished, is told with the instant of it and nothing else."""
    deleted, vanished = create(feed, "deleted"), create(feed, "vanished")
    cursor = changes(feed)["next_cursor"]
    feed.delete(f"/v1/syncs/{deleted}").raise_for_status()
    feed.post("/_double/expire", json={"sync_id": vanished}).raise_for_status()

    page = changes(feed, cursor)

    assert ids(page) == [deleted, vanished]
    assert all(set(item) == {"id", "deleted_at"} for item in page["data"])


def test_health(feed: httpx.Client) -> None:
    """A sync whose health changes is told."""
    sick, _ = create(feed, "sick"), create(feed, "well")
    cursor = changes(feed)["next_cursor"]
    feed.post("/_double/health", json={"sync_id": sick, "status": "error"}).raise_for_status()

    page = changes(feed, cursor)

    assert [item["health"]["status"] for item in page["data"]] == ["error"]


def test_completion(feed: httpx.Client) -> None:
    """A backfill that becomes complete is a change, though no request made it."""
    created = create(feed, "soon")
    cursor = changes(feed)["next_cursor"]
    deadline = time.monotonic() + 5
    while not (page := changes(feed, cursor))["data"]:
        assert time.monotonic() < deadline, "the completion was not told"

    assert ids(page) == [created]
    assert page["data"][0]["initial_backfill_completed_at"] is not None


@pytest.mark.parametrize("query", [{"changed_since": "x"}, {"changed_since": "99"}, {"limit": "0"}])
def test_refused(feed: httpx.Client, query: dict[str, str]) -> None:
    """A cursor that was never given out, and a page of nothing, are refused."""
    assert feed.get("/v1/syncs", params={"changed_since": "", **query}).status_code == 422


def test_without_the_feed(start_peer: StartPeer) -> None:
    """A server without it ignores what it does not know, and lists everything."""
    with client_of(start_peer("contract_api.py", *OPTIONS)) as client:
        created = [create(client, f"number{number}") for number in range(3)]

        page = changes(client, limit=1)

    assert ids(page) == created
    assert set(page) == {"data"}


def test_filled(feed: httpx.Client) -> None:
    """Many complete and healthy syncs can be added at once."""
    syncs = [
        {
            "id": str(uuid4()),
            "credential_id": str(uuid4()),
            "name": f"Customer {number}",
            "collection_ids": ["stripe:customer"],
            "metadata": {"number": number},
            "external_id": f"org_{number}",
        }
        for number in range(3)
    ]

    answer = feed.post("/_double/fill", json={"stream": "customers", "syncs": syncs}).raise_for_status()

    page = changes(feed)
    assert ids(page) == [sync["id"] for sync in syncs]
    assert {item["stream_id"] for item in page["data"]} == {answer.json()["stream_id"]}
    assert all(item["initial_backfill_completed_at"] for item in page["data"])
    assert {item["health"]["status"] for item in page["data"]} == {"healthy"}


def test_filled_wrongly(feed: httpx.Client) -> None:
    """An item that lacks something is refused, and nothing is added."""
    body = {"stream": "customers", "syncs": [{"id": str(uuid4())}]}

    assert feed.post("/_double/fill", json=body).status_code == 422
    assert changes(feed)["data"] == []
