"""What a provider does not let be read: where it is a page, a parent's list, or all of a collection."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlmodel import select, update

from engine.backfill.reader import Reader
from engine.hints import READ
from engine.tables import Progress, Record
from foundation.database import Database, utc_now

CUSTOMERS, PRICES = "/v1/customers", "/v1/prices"


@dataclass
class Watched:
    """A sync and its passes."""

    api: httpx.Client
    database: Database
    reader: Reader
    path: str
    ids: list[UUID]

    @property
    def sync(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(self.path).json()
        return found

    def read(self) -> None:
        """Read whatever the wait for."""
        with self.database.write() as session:
            for progress_id in self.ids:
                session.get_one(Progress, progress_id).due_at = utc_now()
        assert list(self.reader.read(self.ids)) == []

    def again(self) -> None:
        self.api.post(f"{self.path}/backfill").raise_for_status()
        self.read()

    def age(self) -> None:
        """Have the records been seen some time ago: what was seen a moment ago counts as there."""
        with self.database.write() as session:
            mine = update(Record).where(Record.sync_id == UUID(self.path.rpartition("/")[2]))
            session.exec(mine.values(as_of=utc_now() - timedelta(hours=1)))

    def progress(self) -> Progress:
        with self.database.read() as session:
            return session.get_one(Progress, self.ids[0])

    def records(self) -> dict[str, bool]:
        """Ids, and whether they are deleted."""
        with self.database.read() as session:
            wanted = select(Record).where(Record.sync_id == UUID(self.path.rpartition("/")[2]))
            return {each.upstream_id: each.deleted for each in session.exec(wanted)}


@pytest.fixture
def watch(
    api: httpx.Client, database: Database, reader: Reader, hints: Any, sync_body: dict[str, Any]
) -> Callable[..., Watched]:
    def watch(*collection_ids: str) -> Watched:
        body = sync_body | {"collection_ids": list(collection_ids), "rate_limit": None}
        sync = api.post("/v1/syncs", json=body).raise_for_status().json()
        return Watched(api, database, reader, f"/v1/syncs/{sync['id']}", hints.of(READ))

    return watch


@pytest.fixture
def methods(upstream: Any) -> Callable[[int], str]:
    """Three customers with a payment method each; gives where the list of one is."""
    upstream.fill(CUSTOMERS, 3)
    for number in range(3):
        path = f"{CUSTOMERS}/cus_{number}/payment_methods"
        upstream.objects[path] = [{"id": f"pm_{number}", "created": 1_700_000_000}]
    return lambda number: f"{CUSTOMERS}/cus_{number}/payment_methods"


def refusing(
    *paths: str, status: int = 400, after: str | None = None
) -> Callable[..., httpx.Response | None]:
    def interfere(request: httpx.Request) -> httpx.Response | None:
        is_meant = request.url.path in paths and request.url.params.get("starting_after") == after
        return httpx.Response(status) if is_meant else None

    return interfere


def test_one_parent_s_list_is_done_without(watch: Any, upstream: Any, methods: Any) -> None:
    """The others are read, the health tells, nothing is taken for deleted; all is well once it may be."""
    watched = watch("stripe:payment_method")
    watched.read()
    upstream.interfere = refusing(methods(1))
    upstream.objects[methods(2)] = []

    watched.age()
    watched.again()

    reason = watched.sync["health"]["reason"]
    assert (watched.sync["health"]["status"], reason["code"]) == ("error", "collection_failed")
    assert "cus_1" in reason["message"]
    assert watched.sync["initial_backfill_completed_at"]
    assert watched.records() == {"pm_0": False, "pm_1": False, "pm_2": False}

    upstream.interfere = lambda _request: None
    watched.again()

    assert watched.sync["health"]["status"] == "healthy"
    assert watched.records() == {"pm_0": False, "pm_1": False, "pm_2": True}


def test_refusing_every_parent_s_list_refuses_the_collection(watch: Any, upstream: Any, methods: Any) -> None:
    """Then nothing is complete, and the next attempt waits."""
    upstream.interfere = refusing(*(methods(number) for number in range(3)))
    watched = watch("stripe:payment_method")

    watched.read()

    assert watched.sync["health"]["reason"]["code"] == "collection_failed"
    assert watched.sync["initial_backfill_completed_at"] is None
    assert watched.progress().due_at > utc_now() + timedelta(seconds=20)


def test_a_page_refused_twice_is_told_and_waited_for(watch: Any, upstream: Any) -> None:
    """The first time the cursor may be to blame; the second time it led here from the first page on."""
    upstream.fill(CUSTOMERS, 250)
    upstream.interfere = refusing(CUSTOMERS, after="cus_150")
    watched = watch("stripe:customer")

    watched.read()
    before = len(upstream.requests)
    watched.read()
    at_second = len(upstream.requests) - before
    watched.read()

    assert "refuses to list" in watched.sync["health"]["reason"]["message"]
    assert watched.progress().failures == 2
    assert watched.progress().due_at > utc_now() + timedelta(seconds=20)
    assert at_second == 2
    assert len(upstream.requests) - before == 3

    upstream.interfere = lambda _request: None
    watched.read()
    assert (len(watched.records()), watched.sync["health"]["status"]) == (250, "healthy")


def test_a_credential_recovers_when_nobody_reads_what_was_refused(
    api: httpx.Client, watch: Any, upstream: Any
) -> None:
    """A success with it is a success, also of a sync that was not in trouble."""
    upstream.fill(CUSTOMERS, 1)
    upstream.interfere = refusing(PRICES, status=401)
    watched = watch("stripe:customer", "stripe:price")
    watched.read()
    credential = f"/v1/credentials/{watched.sync['credential_id']}"
    assert api.get(credential).json()["health"]["status"] == "error"

    api.patch(watched.path, json={"collection_ids": ["stripe:customer"]}).raise_for_status()
    watched.ids = watched.ids[:1]
    watched.again()

    assert watched.sync["health"]["status"] == "healthy"
    assert api.get(credential).json()["health"]["status"] == "ok"
