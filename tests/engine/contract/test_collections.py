"""Contract 8: collections are looked up per credential."""

import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from engine.backfill.reader import Reader
from engine.collections.schema import learn
from engine.hints import READ
from engine.tables import CollectionRefresh
from foundation.database import Database, utc_now


@pytest.fixture
def sync(api: httpx.Client, sync_body: dict[str, Any]) -> dict[str, Any]:
    body = sync_body | {"collection_ids": ["stripe:customer"], "rate_limit": None}
    created: dict[str, Any] = api.post("/v1/syncs", json=body).json()
    return created


@pytest.fixture
def path(sync: dict[str, Any]) -> str:
    return f"/v1/collections/{sync['credential_id']}"


def settled(api: httpx.Client, path: str) -> dict[str, Any]:
    """The status once the refresh is no longer under way."""
    give_up_at = time.monotonic() + 10
    while (state := api.get(f"{path}/refresh/status").json())["status"] == "processing":
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    found: dict[str, Any] = state
    return found


def test_list(api: httpx.Client, path: str) -> None:
    """Sections 8.1 to 8.3: `{data}`, ids of a fixed-schema provider, a schema without `fields`."""
    collections = {each["id"]: each for each in api.get(path).json()["data"]}

    assert {"stripe:customer", "stripe:invoice"} <= set(collections)
    assert all(
        set(each) == {"id", "upstream_id", "name", "schema", "metadata"} for each in collections.values()
    )
    assert collections["stripe:balance_transaction"]["name"] == "Balance transaction"
    assert collections["stripe:customer"]["schema"]["type"] == "object"


def test_every_listed_collection_can_be_synced(
    api: httpx.Client, path: str, sync: dict[str, Any], sync_body: dict[str, Any]
) -> None:
    """Section 8.4: the list per credential is the authority."""
    ids = [each["id"] for each in api.get(path).json()["data"]]

    answer = api.patch(f"/v1/syncs/{sync['id']}", json={"collection_ids": ids})

    assert answer.json()["collection_ids"] == ids


def test_get(api: httpx.Client, path: str) -> None:
    """Section 8.1: one, or 404."""
    [listed] = [each for each in api.get(path).json()["data"] if each["id"] == "stripe:customer"]

    assert api.get(f"{path}/stripe:customer").json() == listed
    assert api.get(f"{path}/stripe:nothing").json() == {
        "summary": "Not found: no collection matching the given id"
    }


@pytest.mark.parametrize("rest", ["", "/stripe:customer", "/refresh/status"])
def test_unknown_and_foreign_credentials(
    api: httpx.Client, other: httpx.Client, path: str, rest: str
) -> None:
    """Section 8.3: ids exist for their credential only."""
    for answer in (api.get(f"/v1/collections/{uuid4()}{rest}"), other.get(path + rest)):
        assert answer.status_code == 404
        assert answer.json() == {"summary": "Not found: no credential matching the given id"}


def test_refresh(
    api: httpx.Client, path: str, sync: dict[str, Any], upstream: Any, reader: Reader, hints: Any
) -> None:
    """Section 8.1: a refresh ends in `succeeded` and the schema of the records that were read."""
    upstream.fill("/v1/customers", 3)
    reader.read(hints.of(READ))
    before = api.get(f"{path}/refresh/status").json()

    started = api.post(f"{path}/refresh/start")
    after = settled(api, path)

    assert started.status_code == 200
    assert (before["last_started_at"], before["last_succeeded_at"], before["error"]) == (None, None, None)
    assert started.json()["status"] == "processing"
    assert set(after) == {"credential_id", "last_started_at", "last_succeeded_at", "status", "error"}
    assert (after["credential_id"], after["status"], after["error"]) == (
        sync["credential_id"],
        "succeeded",
        None,
    )
    assert after["last_succeeded_at"] >= after["last_started_at"] == started.json()["last_started_at"]
    assert api.get(f"{path}/stripe:customer").json()["schema"]["properties"] == {
        "id": {"type": "string"},
        "created": {"type": "integer"},
        "name": {"type": "string"},
    }


def test_an_interrupted_refresh_has_failed(
    api: httpx.Client, path: str, sync: dict[str, Any], database: Database
) -> None:
    """Section 8.1: `failed` with an error; and it can be started again."""
    long_ago = utc_now() - timedelta(minutes=2)
    with database.write() as session:
        session.add(
            CollectionRefresh(
                credential_id=UUID(sync["credential_id"]), status="processing", last_started_at=long_ago
            )
        )

    failed = api.get(f"{path}/refresh/status").json()
    api.post(f"{path}/refresh/start")

    assert (failed["status"], set(failed["error"])) == ("failed", {"summary"})
    assert settled(api, path)["status"] == "succeeded"


def test_a_refresh_under_way_goes_on(
    api: httpx.Client, path: str, sync: dict[str, Any], database: Database
) -> None:
    """Starting twice starts one."""
    just_now = utc_now()
    with database.write() as session:
        session.add(
            CollectionRefresh(
                credential_id=UUID(sync["credential_id"]), status="processing", last_started_at=just_now
            )
        )

    again = api.post(f"{path}/refresh/start").json()

    assert again["status"] == api.get(f"{path}/refresh/status").json()["status"] == "processing"


def test_learning_a_schema() -> None:
    """Section 8.2: types and formats as they were seen, nested, nothing forbidden."""
    records: list[Any] = [
        {"a": 1, "on": "2026-01-31", "at": "2026-01-31T10:00:00Z", "in": {"b": True}, "l": [1, "x"]},
        {"a": None, "on": "2026-02-28", "at": "2026-01-31T10:00:00+01:00", "in": {"c": 1.5}, "l": []},
        {"n": 1},
        {"n": 1.5, "text": "2026-01-31 or so", "local": "2026-01-31T10:00:00"},
    ]

    assert learn("Thing", records)["properties"] == {
        "a": {"type": ["integer", "null"]},
        "on": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "in": {"type": "object", "properties": {"b": {"type": "boolean"}, "c": {"type": "number"}}},
        "l": {"type": "array", "items": {"type": ["integer", "string"]}},
        "n": {"type": "number"},
        "text": {"type": "string"},
        "local": {"type": "string"},
    }
