"""The documented fields of every object, alone and in a list (sections 1.2 and 1.3)."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from engine.api.listing import MAX_LIMIT
from engine.tables import Stream
from foundation.database import Database
from tests.engine.consuming import consumer, receive

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
APP = {
    *("id", "provider", "name", "client_id", "client_secret", "metadata", "health"),
    *("created_at", "updated_at"),
}
FIELDS = {
    "syncs": SYNC,
    "credentials": CREDENTIAL,
    "http-consumers": CONSUMER,
    "streams": STREAM,
    "oauth-apps": APP,
}


APP_BODY = {"provider": "stripe", "client_id": "ca_1", "client_secret": "s", "name": "Choam"}


@pytest.fixture
def made(api: httpx.Client, sync_body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One object of each kind, as its create answered, by the last part of its path."""
    sync = api.post("/v1/syncs", json=sync_body).json()
    return {
        "syncs": sync,
        "credentials": api.get(f"/v1/credentials/{sync['credential_id']}").json(),
        "http-consumers": api.post("/v1/http-consumers", json={"stream_id": sync["stream_id"]}).json(),
        "streams": api.get(f"/v1/streams/{sync['stream_id']}").json(),
        "oauth-apps": api.post("/v1/oauth-apps", json=APP_BODY).json(),
    }


@pytest.mark.parametrize("kind", FIELDS)
def test_fields(made: dict[str, dict[str, Any]], kind: str) -> None:
    """Sections 1.2, 2.1, 6.1, 7, 9.1 and 10.1: and the ids are UUIDs."""
    assert FIELDS[kind] <= set(made[kind])
    assert str(UUID(made[kind]["id"])) == made[kind]["id"]


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


def test_a_list_is_whole(api: httpx.Client, database: Database, stream: str) -> None:
    """Section 1.2: there are no pages for those who do not ask for any, however long the list."""
    with database.write() as session:
        org_id = session.get_one(Stream, UUID(stream)).org_id
        session.add_all(Stream(org_id=org_id, slug=f"{number}") for number in range(MAX_LIMIT))

    answer = api.get("/v1/streams").json()

    assert set(answer) == {"data"}
    assert len(answer["data"]) == MAX_LIMIT + 1


def test_instants(api: httpx.Client, stream: str, made: dict[str, dict[str, Any]], fill: Any) -> None:
    """Sections 1.3 and 14, row 1: RFC 3339 in UTC, in every object and in records."""
    sync = fill(1)
    [message], _ = receive(api, consumer(api, stream))
    refreshed = api.post(f"/v1/collections/{sync['credential_id']}/refresh/start").json()
    shown = [*made.values(), api.get(f"/v1/syncs/{sync['id']}").json(), message["record"], refreshed]

    found = {name: each for each in shown for name, each in instants(each)}

    assert set(found) == {
        *("created_at", "updated_at", "time", "initial_backfill_completed_at", "last_started_at"),
        *("inserted_at", "upstream_created_at"),
    }
    assert all(INSTANT.fullmatch(each) for each in found.values()), found


def instants(value: Any) -> Iterator[tuple[str, str]]:
    """Everything in an object that is named like a moment, however deep."""
    if isinstance(value, list):
        for each in value:
            yield from instants(each)
    if isinstance(value, dict):
        for name, each in value.items():
            if (name.endswith("_at") or name == "time") and isinstance(each, str):
                yield name, each
            yield from instants(each)


@pytest.mark.parametrize("kind", ["syncs", "credentials", "http-consumers", "oauth-apps"])
def test_a_patch_is_partial(api: httpx.Client, made: dict[str, dict[str, Any]], kind: str) -> None:
    """Section 1.1: what is not given stays as it is."""
    before = made[kind]

    after = api.patch(f"/v1/{kind}/{before['id']}", json={"metadata": {"new": True}}).json()

    changing = {"metadata": {"new": True}, "updated_at": after["updated_at"]}
    if "time" in before.get("health", {}):
        changing["health"] = after["health"]  # whose time is that of the last change
    assert after == before | changing
    assert after["updated_at"] > before["updated_at"]


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
    """Sections 4.1 and 14, row 2: the filter speaks both vocabularies."""
    assert len(api.get("/v1/syncs", params={"health.status": word}).json()["data"]) == found
