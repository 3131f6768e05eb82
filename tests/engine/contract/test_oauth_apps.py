"""Section 7: OAuth apps, and where credentials and syncs show them."""

import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from engine.oauth_apps import note_verdict, oauth_client
from engine.sealing import Safe
from engine.settings import Settings
from engine.tables import OAuthApp, Scope
from engine.tokens import issue
from foundation.database import Database

SECRET = "the-secret-that-the-provider-issued"
MASK = "***********"


def body(**more: Any) -> dict[str, Any]:
    return {
        "provider": "stripe",
        "client_id": "ca_1",
        "client_secret": SECRET,
        "name": "Choam",
        "metadata": {"plan": "gold"},
    } | more


def create(api: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = api.post("/v1/oauth-apps", json=body(**more))
    assert answer.status_code == 200, answer.text
    created: dict[str, Any] = answer.json()
    return created


def credential(**more: Any) -> dict[str, Any]:
    return {"properties": {"kind": "stripe_oauth2", "access_token": f"sk_{uuid4()}"}} | more


def test_create(api: httpx.Client) -> None:
    """Section 7: the documented object, its secret masked; `redirect_uris` is a superset."""
    app = create(api, redirect_uris=["https://product.test/connected?from=gangway"])

    assert set(app) == {
        "id",
        "provider",
        "name",
        "client_id",
        "client_secret",
        "redirect_uris",
        "metadata",
        "health",
        "created_at",
        "updated_at",
    }
    assert {key: app[key] for key in ("provider", "client_id", "name", "metadata")} == {
        "provider": "stripe",
        "client_id": "ca_1",
        "name": "Choam",
        "metadata": {"plan": "gold"},
    }
    assert app["client_secret"] == MASK
    assert app["health"] == {"status": "ok", "notes": [], "time": app["updated_at"]}
    assert api.get(f"/v1/oauth-apps/{app['id']}").json() == app


@pytest.mark.parametrize("field", ["provider", "client_id", "client_secret", "name"])
def test_required(api: httpx.Client, field: str) -> None:
    """Section 7: what is required."""
    answer = api.post("/v1/oauth-apps", json={key: each for key, each in body().items() if key != field})

    assert answer.status_code == 422
    assert answer.json()["validation_errors"] == {field: ["Field required"]}
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "product.test/connected",
        "//product.test",
        "javascript:alert(1)",
        "http://product.test/",
        "https://user:word@product.test/",
        "https://product.test/#fragment",
        "https://product.test\\@evil.test",
        "https://product.test/\r\nSet-Cookie: a=b",
        "https://[",
        "https:///path",
    ],
)
def test_return_urls_are_plain_https(api: httpx.Client, url: str) -> None:
    """Section 6.3, step 2: the redirect URIs that lead back; none that could be read in two ways."""
    answer = api.post("/v1/oauth-apps", json=body(redirect_uris=[url]))

    assert answer.status_code == 422
    assert set(answer.json()["validation_errors"]) == {"redirect_uris"}


def test_secrets_are_sealed_at_rest(api: httpx.Client, database: Database, settings: Settings) -> None:
    """Section 1.5; only who knows app and organisation opens it."""
    app = create(api)

    with database.read() as session:
        row = session.get_one(OAuthApp, UUID(app["id"]))
        client = oauth_client(session, Safe(settings.vault()), row.org_id, row.id)
        elsewhere = oauth_client(session, Safe(settings.vault()), uuid4(), row.id)

    assert SECRET not in row.model_dump_json()
    assert client is not None
    assert (client.client_id, client.client_secret) == ("ca_1", SECRET)
    assert SECRET not in repr(client)
    assert elsewhere is None


def test_truncate_secrets(api: httpx.Client, database: Database) -> None:
    """Section 7: `truncate_secrets` defaults to true; false takes the scope `read-secrets`."""
    app = create(api)
    with database.read() as session:
        org_id = session.get_one(OAuthApp, UUID(app["id"])).org_id
    with database.write() as session:
        _, text = issue(session, org_id, "ordinary", [Scope.READ, Scope.WRITE])
    ordinary = {"Authorization": f"Bearer {text}"}

    def secrets(**params: str) -> list[str]:
        found = api.get("/v1/oauth-apps", params=params).json()["data"]
        return [each["client_secret"] for each in found]

    refused = api.get("/v1/oauth-apps?truncate_secrets=false", headers=ordinary)

    assert secrets() == secrets(truncate_secrets="true") == [MASK]
    assert secrets(truncate_secrets="false") == [SECRET]
    assert refused.status_code == 403
    assert refused.json() == {"summary": "Forbidden: the token lacks the scope read-secrets"}
    assert api.get("/v1/oauth-apps", headers=ordinary).status_code == 200


def test_filters(api: httpx.Client, database: Database) -> None:
    """Section 7: `provider`, `health.status`, `metadata`."""
    create(api)
    create(api, metadata={"plan": "free"})

    def count(**params: str) -> int:
        return len(api.get("/v1/oauth-apps", params=params).json()["data"])

    assert count() == count(provider="stripe") == 2
    assert count(provider="nobody") == 0
    assert count(metadata=json.dumps({"plan": "free"})) == 1
    assert count(**{"health.status": "ok"}) == count(**{"health.status": "healthy"}) == 2
    assert count(**{"health.status": "error"}) == 0


def test_health_follows_the_provider(api: httpx.Client, database: Database) -> None:
    """Section 4.1: `error` with a note while the provider refuses the app, ended by a new secret."""
    app = create(api)
    path = f"/v1/oauth-apps/{app['id']}"
    with database.write() as session:
        note_verdict(session, UUID(app["id"]), is_accepted=False)

    refused = api.get(path).json()["health"]
    listed = api.get("/v1/oauth-apps", params={"health.status": "error"}).json()["data"]
    api.patch(path, json={"client_secret": "another"})

    assert refused["status"] == "error"
    assert refused["notes"]
    assert [each["id"] for each in listed] == [app["id"]]
    assert api.get(path).json()["health"]["status"] == "ok"


def test_update(api: httpx.Client) -> None:
    """Sections 7 and 14, row 16: `name`, `client_secret` and `metadata` change; a bare object."""
    path = f"/v1/oauth-apps/{create(api)['id']}"

    change = {"name": "New", "client_secret": "s2", "metadata": {}, "redirect_uris": ["http://localhost/a"]}
    updated = api.patch(path, json=change).json()

    assert updated | change | {"client_secret": MASK} == updated
    assert api.get(path, params={"truncate_secrets": False}).json()["client_secret"] == "s2"


@pytest.mark.parametrize("field", ["provider", "client_id"])
def test_provider_and_client_id_stay(api: httpx.Client, field: str) -> None:
    """Section 7: they cannot be changed."""
    app = create(api)

    answer = api.patch(f"/v1/oauth-apps/{app['id']}", json={field: app[field]})

    assert answer.status_code == 422
    assert answer.json()["validation_errors"] == {field: ["cannot be changed"]}


def test_embedded_in_credentials_and_syncs(
    api: httpx.Client, sync_body: dict[str, Any], other: httpx.Client, upstream: Any
) -> None:
    """Sections 2.1 and 6.1: one's own app is shown whole, masked; none is the service's own."""
    upstream.account = None  # so that each secret is a credential of its own
    app, elsewhere = create(api), create(other)
    sync_body["credential"] = credential(oauth_app_id=app["id"])

    sync = api.post("/v1/syncs", json=sync_body).json()
    plain = api.post("/v1/credentials", json=credential()).json()
    unknown = api.post("/v1/credentials", json=credential(oauth_app_id=elsewhere["id"])).json()

    assert sync["credential"]["oauth_app"] == app
    assert api.get("/v1/syncs").json()["data"][0]["credential"]["oauth_app"] == app
    assert api.get(f"/v1/credentials/{sync['credential_id']}").json()["oauth_app"] == app
    assert plain["oauth_app"] == {"kind": "sequin"}
    assert unknown["oauth_app"] == {"id": elsewhere["id"]}


def test_an_app_belongs_to_one_provider(api: httpx.Client, database: Database, sync_body: Any) -> None:
    """Section 6.1: the app must be the one that obtained the tokens."""
    app = create(api)
    with database.write() as session:
        row = session.get_one(OAuthApp, UUID(app["id"]))
        row.provider = "elsewhere"
        session.add(row)
    reasons = {"oauth_app_id": ["is an OAuth app of elsewhere"]}
    sync_body["credential"] = credential(oauth_app_id=app["id"])

    alone = api.post("/v1/credentials", json=sync_body["credential"])
    inline = api.post("/v1/syncs", json=sync_body)

    assert alone.json()["validation_errors"] == reasons
    assert inline.json()["validation_errors"] == {"credential": reasons}


def test_delete(api: httpx.Client) -> None:
    """Section 7: an app in use stays, an unused one is gone."""
    app = create(api)
    used = api.post("/v1/credentials", json=credential(oauth_app_id=app["id"])).json()
    path = f"/v1/oauth-apps/{app['id']}"

    refused = api.delete(path)
    api.delete(f"/v1/credentials/{used['id']}")
    deleted = api.delete(path)

    assert refused.status_code == 422
    assert deleted.json() == {"id": app["id"], "deleted": True}
    assert api.get(path).status_code == 404


def test_idempotency_key(api: httpx.Client) -> None:
    """Superset: the same key again is the same app; another secret is another body."""
    headers = {"Idempotency-Key": "k"}
    first, again, different = (
        api.post("/v1/oauth-apps", json=body(client_secret=secret), headers=headers)
        for secret in (SECRET, SECRET, "other")
    )

    assert again.json() == first.json()
    assert different.status_code == 422
