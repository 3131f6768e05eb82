"""Sections 1.2, 1.3, 2.1, 6.1 and 10.1: the documented fields of every object, alone and in a list."""

import re
from typing import Any

import httpx
import pytest

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")

SYNC = {
    *("id", "provider", "stream_id", "name", "status", "org_id", "health", "collection_ids", "rate_limit"),
    *("credential_id", "credential", "max_age_days", "sync_frequency", "initial_backfill_completed_at"),
    *("metadata", "external_id", "created_at", "updated_at"),
}
EMBEDDED = {
    *("id", "provider", "properties", "oauth_app_id", "oauth_app", "metadata", "created_at", "updated_at"),
}
CREDENTIAL = EMBEDDED | {"kind", "name", "health"}
CONSUMER = {
    *("id", "stream_id", "deliver_policy", "ack_wait_ms", "max_deliver", "max_ack_pending", "name"),
    *("metadata", "created_at", "updated_at"),
}
STREAM = {"id", "slug", "org_id", "created_at", "updated_at"}
FIELDS = {"syncs": SYNC, "credentials": CREDENTIAL, "http-consumers": CONSUMER, "streams": STREAM}


@pytest.fixture
def made(api: httpx.Client, sync_body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One object of each kind, as its create answered, by the last part of its path."""
    sync = api.post("/v1/syncs", json=sync_body).json()
    return {
        "syncs": sync,
        "credentials": api.get(f"/v1/credentials/{sync['credential_id']}").json(),
        "http-consumers": api.post("/v1/http-consumers", json={"stream_id": sync["stream_id"]}).json(),
        "streams": api.get(f"/v1/streams/{sync['stream_id']}").json(),
    }


@pytest.mark.parametrize("kind", FIELDS)
def test_fields(made: dict[str, dict[str, Any]], kind: str) -> None:
    """Sections 2.1, 6.1, 9.1 and 10.1."""
    assert FIELDS[kind] <= set(made[kind])


def test_embedded_credential(made: dict[str, dict[str, Any]]) -> None:
    """Section 2.1: inside a sync there is neither health nor name."""
    assert set(made["syncs"]["credential"]) == EMBEDDED


@pytest.mark.parametrize("kind", FIELDS)
def test_bare_alone_and_in_data_when_listed(
    api: httpx.Client, made: dict[str, dict[str, Any]], kind: str
) -> None:
    """Section 1.2: a resource is not wrapped, a list holds nothing beside `data`."""
    assert api.get(f"/v1/{kind}/{made[kind]['id']}").json() == made[kind]
    assert api.get(f"/v1/{kind}").json() == {"data": [made[kind]]}


@pytest.mark.parametrize("kind", FIELDS)
def test_instants(made: dict[str, dict[str, Any]], kind: str) -> None:
    """Section 1.3: RFC 3339 in UTC."""
    for field in ("created_at", "updated_at"):
        assert INSTANT.fullmatch(made[kind][field])


@pytest.mark.parametrize("kind", FIELDS)
def test_deleting_answers_with_the_id(api: httpx.Client, made: dict[str, dict[str, Any]], kind: str) -> None:
    """Section 2.6: 200 with `{id, deleted}`; twice is 404, and the rest stays."""
    users = {"streams": ("syncs", "http-consumers"), "credentials": ("syncs",)}.get(kind, ())
    for user in users:
        api.delete(f"/v1/{user}/{made[user]['id']}")
    path = f"/v1/{kind}/{made[kind]['id']}"

    deleted, again = api.delete(path), api.delete(path)

    assert (deleted.status_code, deleted.json()) == (200, {"id": made[kind]["id"], "deleted": True})
    assert again.status_code == 404


@pytest.mark.parametrize(("word", "found"), [("initializing", 1), ("healthy", 0), ("ok", 0), ("error", 0)])
def test_health_filter_of_syncs(
    api: httpx.Client, made: dict[str, dict[str, Any]], word: str, found: int
) -> None:
    """Section 4.1: the filter speaks both vocabularies."""
    assert len(api.get("/v1/syncs", params={"health.status": word}).json()["data"]) == found
