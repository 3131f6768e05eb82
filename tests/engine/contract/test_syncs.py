"""`/v1/syncs` (section 2)."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from engine.hints import PURGE, READ
from engine.providers.catalogue import load_catalogue

PROVIDERS = ", ".join(load_catalogue({}))


def create(api: httpx.Client, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = api.post("/v1/syncs", json=body | more)
    assert answer.status_code == 200, answer.text
    created: dict[str, Any] = answer.json()
    return created


def test_create_example_of_the_reference(api: httpx.Client, hints: Any, sync_body: dict[str, Any]) -> None:
    """Sections 2.1, 2.2 and 14, rows 3, 5 and 20: the documented object, echoing what was sent."""
    sync = create(api, sync_body)

    echoed = ("provider", "stream_id", "name", "collection_ids", "rate_limit", "metadata", "external_id")
    assert {field: sync[field] for field in echoed} == {field: sync_body[field] for field in echoed}
    assert sync["status"] == "active"
    assert sync["health"] == {"status": "initializing", "sync_id": sync["id"]}
    assert sync["sync_frequency"] == "continuous"
    assert sync["max_age_days"] is None
    assert sync["initial_backfill_completed_at"] is None
    assert sync["credential"]["id"] == sync["credential_id"]
    assert sync["credential"]["oauth_app_id"] == sync_body["credential"]["oauth_app_id"]
    assert sync["credential"]["properties"]["secret"] == "***********"
    assert set(sync["credential"]).isdisjoint({"name", "health"})
    assert len(hints.of(READ)) == 2


def test_get_equals_create(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Section 2.3."""
    sync = create(api, sync_body)

    assert api.get(f"/v1/syncs/{sync['id']}").json() == sync


def test_create_with_an_existing_credential(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Sections 2.2 and 14, row 11: `credential_id` instead of `credential`; the default rate limit."""
    credential = api.post("/v1/credentials", json=sync_body.pop("credential")).json()
    del sync_body["rate_limit"]

    sync = create(api, sync_body, credential_id=credential["id"])

    assert sync["credential_id"] == credential["id"]
    assert sync["rate_limit"] == {"allowed_requests": 50, "interval": 1, "max_concurrent_requests": 0}


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"name": None}, {"name": ["Input should be a valid string"]}),
        ({"credential": None}, {"credential": ["give either credential or credential_id"]}),
        ({"credential_id": str(uuid4())}, {"credential": ["give either credential or credential_id"]}),
        (
            {"credential": None, "credential_id": str(uuid4())},
            {"credential_id": ["Not found: no credential matching the given id"]},
        ),
        ({"stream_id": str(uuid4())}, {"stream_id": ["Not found: no stream matching the given id"]}),
        ({"collection_ids": ["stripe:nothing"]}, {"collection_ids": ["unknown collection stripe:nothing"]}),
        (
            {"collection_ids": []},
            {"collection_ids": ["List should have at least 1 item after validation, not 0"]},
        ),
        ({"sync_frequency": "1h"}, {"sync_frequency": ["Input should be 'continuous' or '4h'"]}),
        (
            {"rate_limit": {"interval": 60}},
            {"rate_limit": {"allowed_requests": ["Field required"]}},
        ),
        (
            {"credential": {"properties": {"kind": "stripe_key"}}},
            {"credential": {"properties": {"secret": ["is required"]}}},
        ),
        (
            {"provider": "unheard_of"},
            {"provider": [f"provider not available in this engine, available: {PROVIDERS}"]},
        ),
        ({"max_age_days": 0}, {"max_age_days": ["Input should be greater than or equal to 1"]}),
    ],
)
def test_invalid_bodies(
    api: httpx.Client, sync_body: dict[str, Any], change: dict[str, Any], errors: dict[str, Any]
) -> None:
    """Section 1.4: 422 names every field at fault; nothing is created."""
    answer = api.post("/v1/syncs", json=sync_body | change)

    assert answer.status_code == 422
    assert answer.json()["validation_errors"] == errors
    assert api.get("/v1/syncs").json() == {"data": []}


@pytest.mark.parametrize("field", ["provider", "stream_id", "name", "collection_ids"])
def test_required(api: httpx.Client, sync_body: dict[str, Any], field: str) -> None:
    """Sections 2.2 and 14, row 12: what is required, the stream too."""
    del sync_body[field]

    answer = api.post("/v1/syncs", json=sync_body)

    assert (answer.status_code, answer.json()["validation_errors"]) == (422, {field: ["Field required"]})


def test_defaults(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Sections 2.1 and 2.2: what holds without being said; a sync is not created disabled."""
    for field in ("rate_limit", "metadata", "external_id"):
        del sync_body[field]

    sync = create(api, sync_body, status="disabled")

    assert {field: sync[field] for field in ("status", "sync_frequency", "max_age_days", "metadata")} == {
        "status": "active",
        "sync_frequency": "continuous",
        "max_age_days": None,
        "metadata": {},
    }
    assert sync["external_id"] is None


def test_rate_limit_in_part(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Section 5.1: the interval is in seconds, zero requests at once are no cap of their own."""
    sync = create(api, sync_body, rate_limit={"allowed_requests": 7})

    assert sync["rate_limit"] == {"allowed_requests": 7, "interval": 60, "max_concurrent_requests": 0}


def test_inline_credentials_are_imported(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Sections 2.2 and 6.1: for the same account there is one credential, however many syncs bring it."""
    first, second = create(api, sync_body), create(api, sync_body)

    assert first["id"] != second["id"]
    assert first["credential_id"] == second["credential_id"]
    assert len(api.get("/v1/credentials").json()["data"]) == 1


def test_filters(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Section 2.4: every filter; and `external_id`, which is a superset."""
    create(api, sync_body, metadata={"connection": "c1", "n": 1, "on": True, "gone": None, 'odd"key': "x"})
    create(api, sync_body, name="Other", external_id="org_2", metadata=[])

    def count(**params: Any) -> int:
        answer = api.get("/v1/syncs", params=params)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["data"])

    assert count() == count(provider="stripe") == count(stream_id=sync_body["stream_id"]) == 2
    assert count(name="Other") == count(external_id="org_2") == 1
    assert count(name="Oth") == count(provider="hubspot") == count(stream_id=str(uuid4())) == 0
    for wanted in ({"connection": "c1"}, {"n": 1}, {"on": True}, {"gone": None}, {'odd"key': "x"}):
        assert count(metadata=json.dumps(wanted)) == 1
    for wanted in ({"connection": "c2"}, {"n": "1"}, {"on": 1}, {"connection": ["c1"]}, {"n": 1, "x": 1}):
        assert count(metadata=json.dumps(wanted)) == 0
    assert count(**{"health.status": "initializing"}) == 2
    assert count(**{"health.status": "ok"}) == 0


def test_pages(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Superset: a limit gives pages, without one the list is whole."""
    ids = [create(api, sync_body, name=f"{number}")["id"] for number in range(5)]

    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = api.get("/v1/syncs", params=params).json()
        seen += [each["id"] for each in page["data"]]
        if "next_cursor" not in page:
            break
        params["cursor"] = page["next_cursor"]

    assert seen == ids


def test_update(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Section 2.5: what is given changes, null clears `max_age_days`, the rest stays."""
    path = f"/v1/syncs/{create(api, sync_body, max_age_days=30)['id']}"
    change = {
        "name": "Renamed",
        "collection_ids": ["stripe:invoice", "stripe:charge"],
        "rate_limit": {"allowed_requests": 5, "interval": 1},
        "status": "disabled",
        "max_age_days": None,
        "sync_frequency": "4h",
        "metadata": {"a": [1]},
    }

    updated = api.patch(path, json=change).json()

    assert {field: updated[field] for field in change} == change | {
        "rate_limit": {"allowed_requests": 5, "interval": 1, "max_concurrent_requests": 0}
    }
    assert api.get(path).json() == updated
    assert api.patch(path, json={}).json()["name"] == "Renamed"


@pytest.mark.parametrize("field", ["name", "collection_ids", "status", "sync_frequency"])
def test_null_empties_no_field_that_a_sync_needs(
    api: httpx.Client, sync_body: dict[str, Any], field: str
) -> None:
    """Section 1.1: what null means is not documented; where a sync needs a value it is refused."""
    path = f"/v1/syncs/{create(api, sync_body)['id']}"

    answer = api.patch(path, json={field: None})

    assert answer.status_code == 422
    assert set(answer.json()["validation_errors"]) == {field}


@pytest.mark.parametrize("field", ["credential", "credential_id", "provider", "stream_id", "external_id"])
def test_immutable_fields_are_refused(api: httpx.Client, sync_body: dict[str, Any], field: str) -> None:
    """Sections 2.5 and 14, row 20: they are refused, not ignored."""
    sync = create(api, sync_body)

    answer = api.patch(f"/v1/syncs/{sync['id']}", json={field: sync[field], "name": "Renamed"})

    assert answer.status_code == 422
    assert answer.json()["validation_errors"] == {field: ["cannot be changed"]}
    assert api.get(f"/v1/syncs/{sync['id']}").json()["name"] == sync["name"]


def test_delete_frees_credential_and_stream(api: httpx.Client, hints: Any, sync_body: dict[str, Any]) -> None:
    """Sections 2.6, 6.2 and 9.1: a credential and a stream in use stay until the sync is gone."""
    sync = create(api, sync_body)
    paths = [f"/v1/credentials/{sync['credential_id']}", f"/v1/streams/{sync['stream_id']}"]

    assert [api.delete(path).status_code for path in paths] == [422, 422]
    deleted = api.delete(f"/v1/syncs/{sync['id']}")

    assert deleted.json() == {"id": sync["id"], "deleted": True}
    assert [str(each) for each in hints.of(PURGE)] == [sync["id"]]
    assert api.get(f"/v1/syncs/{sync['id']}").status_code == 404
    assert api.delete(f"/v1/syncs/{sync['id']}").status_code == 404
    assert [api.delete(path).status_code for path in paths] == [200, 200]


def test_idempotency_key_under_concurrency(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """However often and at once a POST is repeated under one key, there is one sync."""
    headers = {"Idempotency-Key": "signup-1"}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/v1/syncs", json=sync_body, headers=headers), range(16)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.get("/v1/syncs").json()["data"]) == 1
    other = api.post("/v1/syncs", json=sync_body | {"name": "Other"}, headers=headers)
    assert other.status_code == 422


def test_sync_of_one_credential_refuses_another_provider(
    api: httpx.Client, sync_body: dict[str, Any]
) -> None:
    """Section 2.2: the provider may be named again inside the credential, and has to be the same."""
    sync_body["credential"]["provider"] = "stripe"
    create(api, sync_body)
    sync_body["credential"]["provider"] = "hubspot"

    assert api.post("/v1/syncs", json=sync_body).status_code == 422
