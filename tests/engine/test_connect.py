"""The connect flow's decisions, as pure functions, and every provider's `connect` section."""

import asyncio
from urllib.parse import parse_qs

import httpx
import pytest

from engine.connect.codes import Grant, accompanied
from engine.connect.exchange import Exchange, ExchangeError, judged
from engine.oauth_apps import OAuthClient
from engine.providers.catalogue import Provider, load_catalogue
from engine.providers.connect import (
    Connect,
    authorize_url,
    challenge,
    missing_inputs,
    missing_returns,
    properties_of,
    token_form,
    token_url,
    with_query,
)

CONNECT = Connect(
    kind="thing_oauth2",
    authorize_url="https://{shop}.thing.test/authorize?fixed=1",
    token_url="https://{shop}.thing.test/token",
    scopes=("read", "list"),
    scope_separator=",",
    params={"prompt": "consent"},
    inputs={"shop": "[a-z]+"},
    properties={
        "refresh_token": "refresh_token",
        "team": "team.id",
        "scopes": "scope",
        "test": "not live",
        "shop": "input.shop",
    },
)
CONNECTED = [provider for provider in load_catalogue({}).values() if provider.connect is not None]


def test_authorize_url() -> None:
    """The provider's own parameters, the usual scopes unless others are asked for, and a PKCE challenge."""
    url = authorize_url(
        CONNECT,
        client_id="c",
        redirect_uri="https://engine.test/back",
        state="s",
        scope=None,
        inputs={"shop": "acme"},
        verifier="v",
    )

    assert url == (
        "https://acme.thing.test/authorize?fixed=1&prompt=consent&response_type=code&client_id=c"
        "&redirect_uri=https%3A%2F%2Fengine.test%2Fback&state=s&scope=read%2Clist"
        f"&code_challenge={challenge('v')}&code_challenge_method=S256"
    )


def test_token_request() -> None:
    form = token_form(CONNECT, code="c", redirect_uri="r", verifier="v")

    assert token_url(CONNECT, {"shop": "acme"}) == "https://acme.thing.test/token"
    assert form == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "r",
        "code_verifier": "v",
    }


def test_token_request_that_says_more() -> None:
    """Some providers are told in it what kind of token to give."""
    connect = CONNECT.model_copy(update={"token_params": {"expiring": "1"}})

    assert token_form(connect, code="c", redirect_uri="r", verifier="v")["expiring"] == "1"


def test_without_pkce() -> None:
    """For a provider that refuses what it does not know."""
    connect = CONNECT.model_copy(update={"pkce": False})
    url = authorize_url(
        connect, client_id="c", redirect_uri="r", state="s", scope=None, inputs={"shop": "acme"}, verifier="v"
    )

    assert "code_challenge" not in url
    assert "code_verifier" not in token_form(connect, code="c", redirect_uri="r", verifier="v")


@pytest.mark.parametrize("client_auth", ["body", "basic"])
def test_the_app_identifies_itself_in_one_place(client_auth: str) -> None:
    """RFC 6749, section 2.3: in the form or in the header, never in both."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"access_token": "t"})

    async def exchange() -> None:
        exchange = Exchange(httpx.MockTransport(answer))
        connect, client = CONNECT.model_copy(update={"client_auth": client_auth}), OAuthClient("a:b", "c+d")
        await exchange.tokens(
            connect, client, code="c", redirect_uri="r", verifier="v", inputs={"shop": "acme"}
        )
        await exchange.aclose()

    asyncio.run(exchange())
    form, header = parse_qs(asked[0].content.decode()), asked[0].headers.get("Authorization")

    if client_auth == "body":
        assert (form["client_id"], form["client_secret"], header) == (["a:b"], ["c+d"], None)
    else:
        assert (form.keys() & {"client_id", "client_secret"}, header) == (set(), "Basic YSUzQWI6YyUyQmQ=")


@pytest.mark.parametrize("shop", ["", "acme.evil", "acme/", "ACME", "acme\n", "acme@evil"])
def test_inputs_that_would_lead_elsewhere(shop: str) -> None:
    assert missing_inputs(CONNECT, {"shop": shop}) == ["shop"]
    assert missing_inputs(CONNECT, {"shop": "acme"}) == []


def test_properties() -> None:
    """Dotted paths, inputs, negation, arrays joined by either separator; what is not there stays away."""
    answer = {"refresh_token": "r", "team": {"id": 7}, "scope": "a b,c", "live": True}

    assert properties_of(CONNECT, ["scopes"], {**answer, "input": {"shop": "acme"}}) == {
        "kind": "thing_oauth2",
        "refresh_token": "r",
        "team": 7,
        "scopes": ["a", "b", "c"],
        "test": False,
        "shop": "acme",
    }
    assert properties_of(CONNECT, [], {}) == {"kind": "thing_oauth2"}


def test_what_has_to_come_back() -> None:
    """An account's number may come beside the code, or be the identity endpoint's to tell."""
    found = {"refresh_token": "refresh_token", "realm": "callback.realmId", "uid": "identity.id"}
    connect = CONNECT.model_copy(update={"returns": {"realmId": "[0-9]+"}, "properties": found})

    assert missing_returns(connect, {"realmId": "12"}) == []
    assert missing_returns(connect, {"realmId": "1/2"}) == ["realmId"]
    assert (connect.asks_whose, CONNECT.asks_whose) == (True, False)
    document = {"refresh_token": "r", "callback": {"realmId": "12"}, "identity": {"id": "usr1"}}
    assert properties_of(connect, [], document) == {
        "kind": "thing_oauth2",
        "refresh_token": "r",
        "realm": "12",
        "uid": "usr1",
    }


def test_challenge_example_of_the_standard() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

    assert challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_with_query_keeps_what_is_there() -> None:
    assert with_query("https://a.test/b?c=%20d", {"e": "f&g"}) == "https://a.test/b?c=%20d&e=f%26g"
    assert with_query("https://a.test", {"e": "f"}) == "https://a.test?e=f"


@pytest.mark.parametrize(
    ("status", "body", "refuses_app"),
    [
        (401, b"", True),
        (400, b'{"error": "invalid_client"}', True),
        (200, b'{"error": "incorrect_client_credentials"}', True),
        (400, b'{"error": "invalid_grant"}', False),
        (401, b'{"error": "invalid_grant"}', False),
        (400, b'{"error": {"nested": 1}}', False),
        (302, b"{}", False),
        (200, b"[]", False),
        (200, b"\xff", False),
        (500, b'{"error": "invalid_client"}', False),
    ],
)
def test_refusals(status: int, body: bytes, refuses_app: bool) -> None:
    """Only a provider that says so has refused the app; one in trouble has refused nobody."""
    with pytest.raises(ExchangeError) as caught:
        judged(status, body)

    assert caught.value.refuses_app is refuses_app


def test_what_must_come_with_a_code() -> None:
    grant = Grant(properties={}, state="", redirect_uri="https://a.test", code_challenge=challenge("v"))

    assert accompanied(grant, None, "v")
    assert accompanied(grant, "https://a.test", "v")
    assert not accompanied(grant, None, None)
    assert not accompanied(grant, "https://b.test", "v")
    unpromised = grant.model_copy(update={"code_challenge": None})
    assert accompanied(unpromised, None, None)
    assert not accompanied(unpromised, None, "v")


@pytest.mark.parametrize("provider", CONNECTED, ids=lambda provider: provider.name)
def test_every_section_fills_its_kind(provider: Provider) -> None:
    """The kind is the provider's, every property a field of it, every required one there; all is https."""
    connect = provider.connect
    assert connect is not None
    fields = provider.credential_kinds[connect.kind].fields
    example = dict.fromkeys(connect.inputs, "acme")

    assert set(connect.properties) <= set(fields)
    assert {name for name, field in fields.items() if field.required} <= set(connect.properties)
    assert missing_inputs(connect, example) == []
    assert all(
        url.format_map(example).startswith("https://") for url in (connect.authorize_url, connect.token_url)
    )
