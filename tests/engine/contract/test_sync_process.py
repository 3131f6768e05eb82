"""What a sync does once it exists: its backfill, its health, its pace (sections 4, 5 and 12)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlmodel import select

from engine.backfill.reader import Reader
from engine.tables import Progress, ReadingKind
from foundation.database import Database, utc_now

CUSTOMERS, INVOICES = "/v1/customers", "/v1/invoices"


@pytest.fixture
def create(api: httpx.Client, upstream: Any, sync_body: dict[str, Any]) -> Callable[..., str]:
    """Create a sync of customers and invoices, three of each, and give its path."""
    upstream.fill(CUSTOMERS, 3)
    upstream.fill(INVOICES, 3)

    def create(**more: Any) -> str:
        answer = api.post("/v1/syncs", json=sync_body | {"rate_limit": None} | more)
        assert answer.status_code == 200, answer.text
        return f"/v1/syncs/{answer.json()['id']}"

    return create


def test_initial_backfill(api: httpx.Client, create: Any, read: Any, upstream: Any) -> None:
    """Sections 2.1 and 12: of every selected collection; null until its end, which is fixed from then on."""
    path = create()
    before = api.get(path).json()
    read()
    completed = api.get(path).json()
    added = api.patch(path, json={"collection_ids": ["stripe:customer", "stripe:charge"]}).json()
    read()

    asked = [request.url.path for request in upstream.requests]
    assert before["initial_backfill_completed_at"] is None
    assert before["created_at"] <= completed["initial_backfill_completed_at"]
    assert added["initial_backfill_completed_at"] == completed["initial_backfill_completed_at"]
    assert {CUSTOMERS, INVOICES, "/v1/charges"} <= set(asked)
    assert asked.count(CUSTOMERS) == 1, "a collection that stays is not read again"


def test_health(api: httpx.Client, create: Any, read: Any) -> None:
    """Section 4.2: `initializing` until something has been read, then `healthy`; `{status, sync_id}`."""
    path = create()
    before = api.get(path).json()
    read()
    after = api.get(path).json()

    assert before["health"] == {"status": "initializing", "sync_id": before["id"]}
    assert after["health"] == {"status": "healthy", "sync_id": before["id"]}


@pytest.mark.parametrize(
    ("status", "health"), [(401, "error"), (404, "error"), (429, "warning"), (503, "warning")]
)
def test_health_in_trouble(
    api: httpx.Client, create: Any, read: Any, upstream: Any, status: int, health: str
) -> None:
    """Sections 4.1, 4.2 and 12: trouble belongs in the health; `status` is configuration and stays."""
    upstream.interfere = lambda request: httpx.Response(status) if request.url.path == CUSTOMERS else None
    path = create()
    read()

    sync = api.get(path).json()

    words = {"error": ("error",), "warning": ("warning", "warn")}[health]
    assert (sync["status"], sync["health"]["status"]) == ("active", health)
    assert sync["initial_backfill_completed_at"] is None
    for word in words:
        assert api.get("/v1/syncs", params={"health.status": word}).json()["data"] == [sync]
    assert api.get("/v1/syncs", params={"health.status": "ok"}).json()["data"] == []


def test_health_of_a_credential(
    api: httpx.Client, create: Any, read: Any, upstream: Any, sync_body: dict[str, Any]
) -> None:
    """Section 4.1: `{status, notes, time}`; `error` and why while it is refused, `ok` once imported again."""
    upstream.interfere = lambda request: None if request.url.path == "/v1/account" else httpx.Response(401)
    path = create()
    read()
    credential = f"/v1/credentials/{api.get(path).json()['credential_id']}"
    refused = api.get(credential).json()["health"]
    upstream.interfere = lambda _request: None

    api.post("/v1/credentials", json=sync_body["credential"])
    read()

    well = api.get(credential).json()["health"]
    assert (refused["status"], len(refused["notes"])) == ("error", 1)
    assert (well["status"], well["notes"]) == ("ok", [])
    assert refused["time"] < well["time"]
    assert api.get(path).json()["health"]["status"] == "healthy"


def test_an_import_refreshes_the_secrets(
    api: httpx.Client, create: Any, read: Any, upstream: Any, sync_body: dict[str, Any]
) -> None:
    """Section 6.1: what is imported again for the same account is what syncs read with from then on."""
    path = create()
    again = {"kind": "stripe_oauth2", "access_token": "sk_test_renewed", "test": True}
    imported = api.post("/v1/credentials", json={"properties": again}).json()

    read()

    assert imported["id"] == api.get(path).json()["credential_id"]
    assert upstream.requests[-1].headers["Authorization"] == "Bearer sk_test_renewed"


@pytest.mark.parametrize(
    ("frequency", "soonest", "latest"),
    [("continuous", timedelta(0), timedelta(minutes=1)), ("4h", timedelta(hours=3.9), timedelta(hours=4))],
    ids=["continuous", "4h"],
)
def test_sync_frequency(
    create: Any,
    read: Any,
    reader: Reader,
    database: Database,
    upstream: Any,
    frequency: str,
    soonest: timedelta,
    latest: timedelta,
) -> None:
    """Sections 2.1 and 12: changes are looked for as fast as permitted, or every four hours."""
    upstream.objects["/v1/events"] = []
    path = create(sync_frequency=frequency, collection_ids=["stripe:customer"])
    read()
    events = (Progress.sync_id == UUID(path.rpartition("/")[2]), Progress.kind == ReadingKind.EVENTS)
    with database.read() as session:
        looking = session.exec(select(Progress).where(*events)).one()

    reader.read([looking.id])

    with database.read() as session:
        due_at = session.get_one(Progress, looking.id).due_at
    assert due_at is not None
    assert soonest <= due_at - utc_now() <= latest


def test_disabled_is_paused(api: httpx.Client, create: Any, read: Any, upstream: Any) -> None:
    """Section 2.7: nothing is asked of the provider until the sync is active again."""
    path = create()
    api.patch(path, json={"status": "disabled"})
    read()
    paused = [request.url.path for request in upstream.requests if request.url.path in {CUSTOMERS, INVOICES}]

    api.patch(path, json={"status": "active"})
    read()

    assert paused == []
    assert api.get(path).json()["initial_backfill_completed_at"] is not None


def test_rate_limit_is_kept(api: httpx.Client, create: Any, read: Any, upstream: Any) -> None:
    """Section 5.3: never more than the allotment, in which asking for the account's name has its share."""
    path = create(rate_limit={"allowed_requests": 2, "interval": 60})

    read()

    assert len(upstream.requests) == 2
    assert api.get(path).json()["initial_backfill_completed_at"] is None


def test_max_age_days(api: httpx.Client, create: Any, read: Any, upstream: Any) -> None:
    """Sections 2.8 and 14, row 14: the backfill goes back so far; null goes back to the beginning."""
    path = create(max_age_days=30, collection_ids=["stripe:customer"])  # the provider's are of 2023
    read()
    progress = f"{path}/progress"
    young = api.get(progress).json()["data"][0]["records_read"]

    api.patch(path, json={"max_age_days": None})
    read()

    assert (young, api.get(progress).json()["data"][0]["records_read"]) == (0, 3)
