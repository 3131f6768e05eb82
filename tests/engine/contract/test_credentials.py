"""`/v1/credentials`: one per upstream account, secrets never shown (sections 1.5, 6)."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlmodel import select

from engine.providers.catalogue import load_catalogue
from engine.tables import Credential, IdempotencyKey
from foundation.database import Database

KINDS = ", ".join(sorted(load_catalogue({}).kinds))
SECRET = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"


def body(secret: str = SECRET, **more: Any) -> dict[str, Any]:
    properties = {"kind": "stripe_key", "name": "Choam", "secret": secret, "test": True}
    return {"name": "Choam Corp", "properties": properties, "metadata": {"plan": "gold"}} | more


def test_import_masks_secrets(api: httpx.Client) -> None:
    """Sections 1.5 and 14, row 19: a secret comes back as eleven asterisks, all else as it was sent."""
    answer = api.post("/v1/credentials", json=body())

    assert answer.status_code == 200
    credential = answer.json()
    assert credential["properties"] == {
        "kind": "stripe_key",
        "name": "Choam",
        "secret": "***********",
        "test": True,
    }
    assert credential["provider"] == "stripe"
    assert credential["kind"] == "stripe_key"
    assert credential["oauth_app_id"] is None
    assert credential["oauth_app"] == {"kind": "sequin"}
    assert credential["health"]["status"] == "ok"
    assert credential["created_at"].endswith("Z")


def test_secrets_are_sealed_at_rest(api: httpx.Client, database: Database) -> None:
    """Not even a database dump tells a secret."""
    api.post(
        "/v1/credentials", json=body(properties={"kind": "stripe_oauth2", "secret": SECRET, "odd": "hush"})
    )

    with database.read() as session:
        rows = session.exec(select(Credential)).all()

    assert rows
    assert not any(SECRET in row.model_dump_json() or "hush" in row.model_dump_json() for row in rows)


def test_unknown_properties_are_treated_as_secrets(api: httpx.Client) -> None:
    """What the catalogue does not know might be secret, so it is masked and sealed."""
    properties = {"kind": "stripe_key", "secret": SECRET, "restricted_key": "hush"}

    answer = api.post("/v1/credentials", json={"properties": properties})

    assert answer.json()["properties"]["restricted_key"] == "***********"


def test_same_account_is_the_same_credential(api: httpx.Client) -> None:
    """Section 6.1: importing for the same upstream account refreshes it and keeps its id."""
    first = api.post("/v1/credentials", json=body()).json()
    second = api.post("/v1/credentials", json=body("sk_test_another", name="Renamed")).json()

    assert second["id"] == first["id"]
    assert second["name"] == "Renamed"
    assert len(api.get("/v1/credentials").json()["data"]) == 1


def test_test_mode_is_another_credential(api: httpx.Client) -> None:
    """An account's live data is not its test data."""
    live = {"kind": "stripe_key", "secret": "sk_live_1", "test": False}

    first = api.post("/v1/credentials", json=body()).json()
    second = api.post("/v1/credentials", json={"properties": live}).json()

    assert second["id"] != first["id"]


def test_silent_provider_falls_back_to_the_secret(api: httpx.Client, upstream: Any) -> None:
    """When the provider does not name the account, the same secret is the same credential."""
    upstream.account = None

    first, again, other = (
        api.post("/v1/credentials", json=body(secret)).json()["id"]
        for secret in (SECRET, SECRET, "sk_test_b")
    )

    assert first == again
    assert first != other


def test_provider_out_of_reach_does_not_refuse_the_import(api: httpx.Client, upstream: Any) -> None:
    """A provider that is down delays nothing but the knowledge of the account."""

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    upstream.interfere = refuse

    assert api.post("/v1/credentials", json=body()).status_code == 200


def test_concurrent_imports_agree(api: httpx.Client, upstream: Any) -> None:
    """Two at once both succeed and name the same credential."""
    upstream.account = None

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/v1/credentials", json=body()), range(16)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_flat_spelling_of_the_concept_page(api: httpx.Client) -> None:
    """Section 14, row 6: one page spells the properties flat."""
    flat = {
        "kind": "stripe_oauth2",
        "access_token": "sk_live_7eC39HqLyjWDarjtT1zdp7dc",
        "oauth_app_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
        "metadata": {"custom_property": 42},
    }

    credential = api.post("/v1/credentials", json=flat).json()

    assert credential["properties"] == {"kind": "stripe_oauth2", "access_token": "***********"}
    assert credential["oauth_app_id"] == flat["oauth_app_id"]
    assert credential["metadata"] == {"custom_property": 42}


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({}, {"properties": ["Field required"]}),
        ({"properties": {"kind": "stripe_key"}}, {"properties": {"secret": ["is required"]}}),
        (
            {"properties": {"kind": "stripe_key", "secret": 5}},
            {"properties": {"secret": ["must be a string"]}},
        ),
        (
            {"properties": {"kind": "unheard_of"}},
            {"properties": {"kind": [f"not available in this engine, available: {KINDS}"]}},
        ),
        (
            {"provider": "hubspot", "properties": {"kind": "stripe_key", "secret": SECRET}},
            {"provider": ["stripe_key is a kind of stripe"]},
        ),
    ],
)
def test_invalid_bodies(api: httpx.Client, given: dict[str, Any], errors: dict[str, Any]) -> None:
    """Section 1.4: 422 maps each field to its reasons, nested as the body is, and repeats no value."""
    answer = api.post("/v1/credentials", json=given)

    assert answer.status_code == 422
    assert answer.json()["validation_errors"] == errors
    assert SECRET not in answer.text


def test_filters(api: httpx.Client, upstream: Any) -> None:
    """Section 6.2: provider, kind, metadata and health narrow the list."""
    upstream.account = None
    api.post("/v1/credentials", json=body("sk_a", metadata={"plan": {"name": "gold", "seats": [1, 2]}}))
    api.post("/v1/credentials", json=body("sk_b", metadata={"plan": "gold"}))

    def count(**params: str) -> int:
        return len(api.get("/v1/credentials", params=params).json()["data"])

    assert count(provider="stripe") == 2
    assert count(kind="stripe_oauth2") == 0
    assert count(metadata=json.dumps({"plan": {"name": "gold"}})) == 1
    assert count(metadata=json.dumps({"plan": {"seats": [2]}})) == 1
    assert count(metadata=json.dumps({"plan": "gold"})) == 1
    assert count(metadata="{}") == 2
    assert count(**{"health.status": "ok"}) == count(**{"health.status": "healthy"}) == 2
    assert count(**{"health.status": "error"}) == 0


def test_update_and_delete(api: httpx.Client) -> None:
    """Section 6.2: name and metadata change; a deleted credential is gone."""
    path = f"/v1/credentials/{api.post('/v1/credentials', json=body()).json()['id']}"

    updated = api.patch(path, json={"name": None, "metadata": {"a": 1}}).json()
    deleted = api.delete(path)

    assert (updated["name"], updated["metadata"]) == (None, {"a": 1})
    assert deleted.json() == {"id": updated["id"], "deleted": True}
    assert api.get(path).status_code == 404


@pytest.mark.parametrize("field", ["properties", "oauth_app_id", "provider"])
def test_the_rest_stays(api: httpx.Client, field: str) -> None:
    """Section 6.2: secrets are replaced by importing again, and whoever tries otherwise is told."""
    imported = api.post("/v1/credentials", json=body()).json()

    answer = api.patch(f"/v1/credentials/{imported['id']}", json={field: imported[field], "name": "Renamed"})

    assert answer.status_code == 422
    assert answer.json()["validation_errors"] == {field: ["cannot be changed"]}
    assert api.get(f"/v1/credentials/{imported['id']}").json() == imported


def test_idempotency_key(api: httpx.Client) -> None:
    """The same key and body: the first object's current answer; another body: 422."""
    headers = {"Idempotency-Key": str(uuid4())}
    first = api.post("/v1/credentials", json=body(), headers=headers).json()
    api.patch(f"/v1/credentials/{first['id']}", json={"name": "Renamed"})

    again = api.post("/v1/credentials", json=body(), headers=headers)
    other = api.post("/v1/credentials", json=body("sk_other"), headers=headers)

    assert (again.json()["id"], again.json()["name"]) == (first["id"], "Renamed")
    assert other.status_code == 422


def test_idempotency_key_holds_no_secret(api: httpx.Client, database: Database) -> None:
    """The digest of a body is keyed and says nothing about it."""
    api.post("/v1/credentials", json=body(), headers={"Idempotency-Key": "k"})

    with database.read() as session:
        noted = session.exec(select(IdempotencyKey)).all()

    assert noted
    assert not any(SECRET in row.model_dump_json() for row in noted)
