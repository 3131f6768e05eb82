"""Whose account a credential is, and how it is captured where only the provider can tell."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.peers.providers.airtable import Airtable
from tests.peers.providers.linear import Linear
from tests.peers.providers.quickbooks import QuickBooks
from tests.peers.providers.sendgrid import SendGrid
from tests.peers.providers.tokens import Tokens

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")

UID = "usrL2PNC5o3H4lBEi"
RETURN = "https://product.test/connected"


def imported(api: httpx.Client, **properties: Any) -> str:
    answer = api.post("/v1/credentials", json={"properties": properties})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_same_account(api: httpx.Client, upstream: Any) -> None:
    """One account is one credential, whether its properties say so or the provider does."""
    fake = SendGrid()
    upstream.interfere = fake
    keys = []
    for fake.key in ("SG.key-1", "SG.key-2"):
        keys.append(imported(api, kind="sendgrid_key", secret=fake.key))
    upstream.interfere = Airtable(tokens=Tokens(good=["pat-1", "pat-2"]))
    tokens = [imported(api, kind="airtable_key", secret=each) for each in ("pat-1", "pat-2")]
    oauth = imported(
        api,
        kind="airtable_oauth2",
        refresh_token="r",
        scope="data.records:read",
        airtable_uid=UID,
    )
    upstream.interfere = Linear(tokens=Tokens(good=["a"]))
    workspaces = [
        imported(api, kind="linear_key", secret="lin_api_1"),
        imported(api, kind="linear_oauth2", access_token="a"),
        imported(api, kind="linear_oauth2", access_token="b", linear_org_id="org-1"),
    ]
    companies = [
        imported(api, kind="quickbooks_oauth2", refresh_token=f"r{number}", realm_id=each)
        for number, each in enumerate((12, "12", 13))
    ]
    tenants = [
        imported(api, kind="auth0_app", domain=f"{each}.eu.auth0.com", client_id="c", client_secret="s")
        for each in ("a", "a", "b")
    ]

    assert len(set(keys)) == 1
    assert len(set(workspaces)) == 1
    assert {*tokens, oauth} == {oauth}
    assert companies[0] == companies[1] != companies[2]
    assert tenants[0] == tenants[1] != tenants[2]


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"kind": "auth0_app", "domain": "evil.test", "client_id": "c", "client_secret": "s"}, "domain"),
        (
            {"kind": "auth0_app", "domain": "auth0.com@evil.test", "client_id": "c", "client_secret": "s"},
            "domain",
        ),
        ({"kind": "quickbooks_oauth2", "realm_id": "..", "refresh_token": "r"}, "realm_id"),
        (
            {"kind": "servicenow_password", "instance": "evil.test/", "username": "u", "password": "p"},
            "instance",
        ),
        (
            {"kind": "marketo_app", "munchkin_id": "evil.test#", "client_id": "c", "client_secret": "s"},
            "munchkin_id",
        ),
    ],
)
def test_addresses_of_others_are_refused(api: httpx.Client, properties: Any, field: str) -> None:
    """A credential cannot point the engine anywhere but at its provider."""
    answer = api.post("/v1/credentials", json={"properties": properties})

    assert answer.status_code == 422
    assert list(answer.json()["validation_errors"]["properties"]) == [field]


@pytest.mark.parametrize(
    ("make", "back", "named"),
    [
        (Airtable, {}, {"airtable_uid": UID, "scope": "data.records:read schema.bases:read"}),
        (QuickBooks, {"realmId": "9130357849536906"}, {"realm_id": "9130357849536906"}),
        (
            Linear,
            {},
            {
                "access_token": "access-1",
                "scope": "read",
                "linear_org_id": "org-1",
                "linear_org_name": "CHOAM",
            },
        ),
    ],
)
def test_captured_in_a_browser(
    api: httpx.Client, server: str, upstream: Any, make: Callable[[], Any], back: Any, named: Any
) -> None:
    """The account comes from whoever names it: the callback, or the identity endpoint."""
    upstream.interfere = fake = make()
    provider = type(fake).__name__.lower()
    app = {
        "provider": provider,
        "name": "Product",
        "client_id": "client-1",
        "client_secret": "client-secret-1",
    }
    app_id = api.post("/v1/oauth-apps", json=app | {"redirect_uris": [RETURN]}).json()["id"]

    with httpx.Client(base_url=server, timeout=30) as browser:
        start = {"client_id": app_id, "redirect_uri": RETURN, "response_type": "code"}
        asked = query(browser.get("/link/oauth2/start", params=start))
        came = {"state": asked["state"], "code": "from-the-provider"}
        if back:
            assert (
                query(browser.get(f"/link/oauth2/callback/{provider}", params=came))["error"]
                == "server_error"
            )
            asked = query(browser.get("/link/oauth2/start", params=start))
            came["state"] = asked["state"]
        code = query(browser.get(f"/link/oauth2/callback/{provider}", params=came | back))["code"]
        proof = {"code": code, "client_id": app_id, "client_secret": "client-secret-1"}
        captured = browser.post("/link/oauth2/token", json=proof).json()["credential"]

    kind = f"{provider}_oauth2"
    assert captured["properties"] == {"kind": kind, "refresh_token": fake.tokens.refresh_token} | named
    if fake.tokens.pkce:
        sent = next(parse_qs(each.content.decode()) for each in fake.requests if each.method == "POST")
        digest = hashlib.sha256(sent["code_verifier"][0].encode()).digest()
        assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_a_callback_that_names_somebody_elses_account(api: httpx.Client, server: str, upstream: Any) -> None:
    """A browser goes where its user says: what only the address tells is held against the token."""
    upstream.interfere = QuickBooks()
    app = {"provider": "quickbooks", "name": "Product", "client_id": "client-1", "redirect_uris": [RETURN]}
    app_id = api.post("/v1/oauth-apps", json=app | {"client_secret": "client-secret-1"}).json()["id"]

    with httpx.Client(base_url=server, timeout=30) as browser:
        asked = query(browser.get("/link/oauth2/start", params={"client_id": app_id, "redirect_uri": RETURN}))
        came = {"state": asked["state"], "code": "from-the-provider", "realmId": "9130357849536907"}
        answer = query(browser.get("/link/oauth2/callback/quickbooks", params=came))

    assert answer["error"] == "server_error"
    assert answer["error_description"] == "The provider does not confirm which account it is."


def query(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 302, answer.text
    return {key: each[0] for key, each in parse_qs(urlsplit(answer.headers["Location"]).query).items()}
