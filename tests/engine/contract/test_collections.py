"""Section 8: collections are looked up per credential."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from engine.backfill.reader import Reader
from engine.collections.inspect import Inspector
from engine.collections.refresh import ABANDONED_AFTER
from engine.collections.schema import learn
from engine.hints import INSPECT, READ
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


@pytest.fixture
def inspector(reader: Reader) -> Inspector:
    """What a worker looks at collections with."""
    return Inspector(reader.database, reader.authority, reader.client, reader.pace, reader.stopping)


def refreshed(api: httpx.Client, path: str, inspector: Inspector, hints: Any) -> dict[str, Any]:
    """The status after a refresh that was started, and done by a worker that was told of it."""
    started = api.post(f"{path}/refresh/start").json()
    assert (started["status"], started["error"]) == ("processing", None)
    [credential_id] = hints.of(INSPECT)
    inspector.refresh(credential_id)
    found: dict[str, Any] = api.get(f"{path}/refresh/status").json()
    assert found["last_started_at"] == started["last_started_at"]
    return found


def test_list(api: httpx.Client, path: str) -> None:
    """Sections 8.1, 8.2, 8.3 and 14, row 17: `{data}`, ids of a fixed schema, and no `fields`."""
    listed = api.get(path, params={"include": "upstream_metadata"}).json()["data"]
    collections = {each["id"]: each for each in listed}

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
    api: httpx.Client, path: str, sync: dict[str, Any], upstream: Any, inspector: Inspector, hints: Any
) -> None:
    """Sections 8.1 and 14, row 23: re-reads the upstream schema, to `succeeded`; no sync need have read."""
    upstream.fill("/v1/customers", 3)
    before = api.get(f"{path}/refresh/status").json()

    after = refreshed(api, path, inspector, hints)

    assert (before["last_started_at"], before["last_succeeded_at"], before["error"]) == (None, None, None)
    assert set(after) == {"credential_id", "last_started_at", "last_succeeded_at", "status", "error"}
    assert after["credential_id"] == sync["credential_id"]
    assert (after["status"], after["error"]) == ("succeeded", None)
    assert after["last_succeeded_at"] >= after["last_started_at"]
    assert api.get(f"{path}/stripe:customer").json()["schema"]["properties"] == {
        "id": {"type": "string"},
        "created": {"type": "integer"},
        "name": {"type": "string"},
    }


def test_a_refresh_remembers_what_syncs_have_read(
    api: httpx.Client, path: str, upstream: Any, reader: Reader, inspector: Inspector, hints: Any
) -> None:
    """Fields that the provider's first page does not show, and collections that it no longer lists."""
    upstream.objects["/v1/customers"] = [{"id": "cus_1", "created": 1_700_000_000, "rare": True}]
    reader.read(hints.of(READ))
    upstream.fill("/v1/customers", 1)

    assert refreshed(api, path, inspector, hints)["status"] == "succeeded"

    properties = api.get(f"{path}/stripe:customer").json()["schema"]["properties"]
    assert set(properties) == {"id", "created", "name", "rare"}


@pytest.mark.parametrize(("status", "summary"), [(401, "rejected the credential"), (404, "refuses to list")])
def test_a_refresh_that_is_refused_has_failed(
    api: httpx.Client,
    path: str,
    upstream: Any,
    inspector: Inspector,
    hints: Any,
    status: int,
    summary: str,
) -> None:
    """Section 8.1: `failed`, and an error that says why."""
    upstream.interfere = lambda _request: httpx.Response(status, json={})

    after = refreshed(api, path, inspector, hints)

    assert (after["status"], after["last_succeeded_at"]) == ("failed", None)
    assert summary in after["error"]["summary"]


def test_a_refresh_that_meets_a_mistake_has_failed(
    api: httpx.Client, path: str, upstream: Any, inspector: Inspector, hints: Any
) -> None:
    """It is told by its type: its words may quote a secret."""

    def fail(_request: httpx.Request) -> httpx.Response:
        raise LookupError("sk_live_7eC39HqLyjWDarjtT1zdp7dc")

    upstream.interfere = fail

    after = refreshed(api, path, inspector, hints)

    assert (after["status"], after["error"]["summary"]) == (
        "failed",
        "The engine cannot read this account (LookupError)",
    )


def test_an_interrupted_refresh_has_failed(
    api: httpx.Client, path: str, sync: dict[str, Any], database: Database, hints: Any
) -> None:
    """Section 8.1: `failed` with an error; and it can be started again."""
    long_ago = utc_now() - 2 * ABANDONED_AFTER
    with database.write() as session:
        session.add(
            CollectionRefresh(
                credential_id=UUID(sync["credential_id"]), status="processing", last_started_at=long_ago
            )
        )

    failed = api.get(f"{path}/refresh/status").json()
    again = api.post(f"{path}/refresh/start").json()

    assert (failed["status"], set(failed["error"])) == ("failed", {"summary"})
    assert again["status"] == "processing"
    assert hints.of(INSPECT) == [UUID(sync["credential_id"])]


def test_a_refresh_under_way_goes_on(
    api: httpx.Client, path: str, sync: dict[str, Any], database: Database, hints: Any
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
    assert not hints.of(INSPECT)


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
