"""Section 6.3: a customer's OAuth credential, captured in a browser and fetched with a one-time code."""

import base64
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from sqlmodel import col, select, update

from engine.api import connect as connect_routes
from engine.providers.connect import challenge
from engine.settings import Settings
from engine.tables import ConnectCode
from foundation.database import Database, utc_now

RETURN = "https://product.test/connected?tenant=7"
CLIENT_SECRET = "issued-by-the-provider"
TOKENS = {
    "access_token": "sk_live_captured",
    "refresh_token": "rt_captured",
    "scope": "read_only",
    "livemode": False,
    "stripe_user_id": "acct_1",
}
VERIFIER = "v" * 43
CHALLENGE = challenge(VERIFIER)


@pytest.fixture
def app(api: httpx.Client) -> dict[str, Any]:
    """A registered OAuth app."""
    body = {
        "provider": "stripe",
        "client_id": "ca_1",
        "client_secret": CLIENT_SECRET,
        "name": "Product",
        "redirect_uris": [RETURN],
    }
    created: dict[str, Any] = api.post("/v1/oauth-apps", json=body).json()
    return created


@pytest.fixture
def provider(upstream: Any) -> list[httpx.Request]:
    """The provider's token endpoint: takes the app's id and secret and one code, else refuses."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/oauth/token":
            return None
        asked.append(request)
        form = parse_qs(request.content.decode())
        if (form["client_id"], form["client_secret"]) != (["ca_1"], [CLIENT_SECRET]):
            return httpx.Response(401, json={"error": "invalid_client"})
        if form["code"] != ["from-the-provider"] or form["grant_type"] != ["authorization_code"]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        return httpx.Response(200, json=TOKENS)

    upstream.interfere = answer
    return asked


def start(browser: httpx.Client, app: dict[str, Any], **more: Any) -> httpx.Response:
    params = {"client_id": app["id"], "redirect_uri": RETURN, "state": "s 1&", "response_type": "code"}
    return browser.get("/link/oauth2/start", params=params | more)


def query(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 302, answer.text
    return {key: each[0] for key, each in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def come_back(browser: httpx.Client, started: httpx.Response, **more: str) -> httpx.Response:
    params = {"state": query(started)["state"], "code": "from-the-provider"} | more
    return browser.get("/link/oauth2/callback/stripe", params=params)


def fetch(browser: httpx.Client, app: dict[str, Any], code: str, **more: Any) -> httpx.Response:
    body = {"code": code, "client_id": app["id"], "client_secret": CLIENT_SECRET}
    return browser.post("/link/oauth2/token", json=body | more)


@pytest.fixture
def code(browser: httpx.Client, app: dict[str, Any], provider: Any) -> str:
    """The one-time code at the end of the browser's way."""
    return query(come_back(browser, start(browser, app)))["code"]


def test_the_whole_way(
    api: httpx.Client, browser: httpx.Client, app: dict[str, Any], provider: list[httpx.Request]
) -> None:
    """Section 6.3, steps 3 to 6: the answer's `credential` is a fit body for an import."""
    started = start(browser, app)
    back = come_back(browser, started)
    answer = fetch(browser, app, query(back)["code"])
    imported = api.post("/v1/credentials", json=answer.json()["credential"])

    asked = urlsplit(started.headers["Location"])
    assert f"{asked.scheme}://{asked.netloc}{asked.path}" == "https://connect.stripe.com/oauth/authorize"
    assert query(started) | {
        "client_id": "ca_1",
        "response_type": "code",
        "scope": "read_only",
        "redirect_uri": f"{str(browser.base_url).rstrip('/')}/link/oauth2/callback/stripe",
    } == query(started)
    verifier = parse_qs(provider[0].content.decode())["code_verifier"][0]
    assert query(started)["code_challenge"] == challenge(verifier)
    assert query(started)["code_challenge_method"] == "S256"
    assert back.headers["Location"].startswith(RETURN + "&")
    assert query(back)["state"] == "s 1&"
    assert query(back)["iss"] == str(browser.base_url).rstrip("/")
    assert answer.json() == {
        "credential": {
            "oauth_app_id": app["id"],
            "properties": {
                "kind": "stripe_oauth2",
                "access_token": "sk_live_captured",
                "refresh_token": "rt_captured",
                "scope": "read_only",
                "stripe_user_id": "acct_1",
                "test": True,
            },
        },
        "state": "s 1&",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert imported.status_code == 200
    assert imported.json()["oauth_app"]["id"] == app["id"]
    assert len(provider) == 1


def test_the_credential_is_a_fit_part_of_a_sync(
    api: httpx.Client, browser: httpx.Client, app: dict[str, Any], code: str, sync_body: dict[str, Any]
) -> None:
    """Section 6.3, step 6: or the `credential` of a sync."""
    credential = fetch(browser, app, code).json()["credential"]

    answer = api.post("/v1/syncs", json=sync_body | {"credential": credential})

    assert answer.status_code == 200
    assert answer.json()["credential"]["properties"]["refresh_token"] == "***********"


def test_a_form_will_do(browser: httpx.Client, app: dict[str, Any], code: str) -> None:
    """Superset: OAuth2 clients send a form; what is empty in it was given."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": app["id"],
        "client_secret": CLIENT_SECRET,
        "redirect_uri": RETURN,
    }

    refused = browser.post("/link/oauth2/token", data=form | {"client_secret": ""})

    assert refused.status_code == 401
    assert browser.post("/link/oauth2/token", data=form).status_code == 200


def test_a_code_works_once(browser: httpx.Client, app: dict[str, Any], code: str) -> None:
    """Each code is exchanged by exactly one of many who try at once."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fetch(browser, app, code), range(16)))

    assert sorted(answer.status_code for answer in answers) == [200, *([400] * 15)]
    assert {answer.json()["summary"] for answer in answers if answer.status_code == 400} == {
        "Invalid code: unknown, expired, used before, or meant for another request"
    }


def test_a_code_expires(browser: httpx.Client, app: dict[str, Any], code: str, database: Database) -> None:
    """After five minutes; expired ones are erased when the next is made."""
    with database.write() as session:
        assert session.exec(select(ConnectCode)).all()
        before = utc_now() - timedelta(seconds=1)
        session.exec(update(ConnectCode).where(col(ConnectCode.id).is_not(None)).values(expires_at=before))

    answer = fetch(browser, app, code)
    come_back(browser, start(browser, app))

    with database.read() as session:
        held = session.exec(select(ConnectCode)).all()
    assert answer.status_code == 400
    assert len(held) == 1
    assert timedelta(minutes=4) < held[0].expires_at - utc_now() <= timedelta(minutes=5)


def test_captured_secrets_are_sealed_at_rest(code: str, database: Database) -> None:
    with database.read() as session:
        rows = [row.model_dump_json() for row in session.exec(select(ConnectCode))]

    assert rows
    assert not any("captured" in row or code in row for row in rows)


@pytest.mark.parametrize(
    "change", [{"client_id": str(uuid4())}, {"client_id": "ca_1"}, {"client_secret": ""}]
)
def test_the_app_must_be_known(
    browser: httpx.Client, app: dict[str, Any], code: str, change: dict[str, str]
) -> None:
    """Section 6.3, step 5: our id of the app and the provider's secret of it, no bearer token."""
    refused = fetch(browser, app, code, **change)

    assert refused.status_code == 401
    assert refused.json() == {"summary": "Unauthorized: unknown OAuth app or wrong client secret"}
    assert fetch(browser, app, code).status_code == 200


def test_a_code_is_bound_to_its_app_and_return(
    api: httpx.Client, browser: httpx.Client, app: dict[str, Any], code: str
) -> None:
    body = {"provider": "stripe", "client_id": "x", "client_secret": CLIENT_SECRET, "name": "Another"}
    another = api.post("/v1/oauth-apps", json=body).json()

    assert fetch(browser, another, code).status_code == 400
    assert fetch(browser, app, code, redirect_uri="https://evil.test/").status_code == 400
    assert fetch(browser, app, code, redirect_uri=RETURN).status_code == 200


def test_pkce(browser: httpx.Client, app: dict[str, Any], provider: Any) -> None:
    """RFC 7636: whoever announced a verifier has to bring it."""
    started = start(browser, app, code_challenge=CHALLENGE, code_challenge_method="S256")
    code = query(come_back(browser, started))["code"]

    assert fetch(browser, app, code).status_code == 400
    assert fetch(browser, app, code, code_verifier="w" * 43).status_code == 400
    assert fetch(browser, app, code, code_verifier=VERIFIER).status_code == 200


def test_pkce_cannot_be_taken_out_of_the_link(browser: httpx.Client, app: dict[str, Any], code: str) -> None:
    """RFC 9700, 4.8.2: who brings a verifier had announced it; a code without a challenge is not theirs."""
    assert fetch(browser, app, code, code_verifier=VERIFIER).status_code == 400
    assert fetch(browser, app, code).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": str(uuid4())},
        {"client_id": "nonsense"},
        {"redirect_uri": "https://evil.test/"},
        {"redirect_uri": RETURN + "&more=1"},
        {"redirect_uri": RETURN.replace("https", "http")},
        {"redirect_uri": "//product.test/connected?tenant=7"},
        {"redirect_uri": ""},
    ],
)
def test_nobody_is_sent_where_the_app_does_not_allow(
    browser: httpx.Client, app: dict[str, Any], change: dict[str, str]
) -> None:
    """Section 6.3, step 2: an unknown app or address ends in a page, never in a redirect."""
    answer = start(browser, app, **change)

    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "could not be connected" in answer.text
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": CHALLENGE}, "invalid_request"),
        ({"code_challenge": CHALLENGE, "code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "é" * 43, "code_challenge_method": "S256"}, "invalid_request"),
        ({"code_challenge": "", "code_challenge_method": "S256"}, "invalid_request"),
        ({"state": "x" * 5_001}, "invalid_request"),
    ],
)
def test_bad_requests_are_told_to_the_product(
    browser: httpx.Client, app: dict[str, Any], change: dict[str, str], error: str
) -> None:
    """RFC 6749, 4.1.2.1."""
    answer = start(browser, app, **change)

    assert answer.headers["Location"].startswith(RETURN)
    assert query(answer)["error"] == error


def test_the_state_is_sealed_and_bound_to_the_browser(
    browser: httpx.Client, server: str, app: dict[str, Any], provider: list[httpx.Request]
) -> None:
    """Nobody's journey can be read, forged, or finished in somebody else's browser."""
    started = start(browser, app)
    state = query(started)["state"]
    forged = state[:-5] + ("A" if state[-5] != "A" else "B") + state[-4:]

    with httpx.Client(base_url=server) as stranger:
        stolen = come_back(stranger, started)
    answers = [stolen, come_back(browser, started, state=forged), come_back(browser, started, state="")]

    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert "product.test" not in base64.urlsafe_b64decode(state.split(".")[1]).decode(errors="replace")
    assert re.search(r"HttpOnly; .*SameSite=lax", started.headers["Set-Cookie"])
    assert provider == []
    assert come_back(browser, started).status_code == 302


def test_a_journey_ends(
    browser: httpx.Client, app: dict[str, Any], provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(browser, app)
    monkeypatch.setattr(connect_routes, "utc_now", lambda: utc_now() + timedelta(minutes=16))

    answer = come_back(browser, started)

    assert answer.status_code == 400
    assert "expired" in answer.text


@pytest.mark.parametrize(
    ("error", "passed_on"), [("access_denied", "access_denied"), ("<script>", "server_error")]
)
def test_the_user_declines(
    browser: httpx.Client, app: dict[str, Any], provider: Any, error: str, passed_on: str
) -> None:
    """The product hears of it, with its state, in words of the standard."""
    answer = browser.get(
        "/link/oauth2/callback/stripe",
        params={"state": query(start(browser, app))["state"], "error": error},
    )

    assert query(answer)["error"] == passed_on
    assert query(answer)["state"] == "s 1&"
    assert "code" not in query(answer)


def test_another_providers_callback(browser: httpx.Client, app: dict[str, Any], provider: Any) -> None:
    """A state is of use at its own provider's callback only (mix-up)."""
    state = query(start(browser, app))["state"]

    assert browser.get(f"/link/oauth2/callback/hubspot?code=x&state={state}").status_code == 400


def test_an_address_taken_from_the_app_is_no_longer_returned_to(
    api: httpx.Client, browser: httpx.Client, app: dict[str, Any], provider: Any
) -> None:
    started = start(browser, app)
    api.patch(f"/v1/oauth-apps/{app['id']}", json={"redirect_uris": []})

    assert come_back(browser, started).status_code == 400


@pytest.mark.parametrize(
    ("outage", "error"),
    [
        (lambda _request: httpx.Response(503), "temporarily_unavailable"),
        (lambda _request: httpx.Response(400, json={"error": "invalid_grant"}), "server_error"),
        (lambda _request: httpx.Response(200, json={"error": "bad_verification_code"}), "server_error"),
        (lambda _request: httpx.Response(200, json={"token_type": "bearer"}), "server_error"),
        (lambda _request: httpx.Response(200, text="<html>"), "server_error"),
        (lambda _request: httpx.Response(200, content=b"x" * 300_000), "temporarily_unavailable"),
    ],
)
def test_a_provider_that_gives_no_tokens(
    browser: httpx.Client, app: dict[str, Any], upstream: Any, outage: Callable[..., Any], error: str
) -> None:
    """Whatever it says, the product gets an error it can show, and no code."""
    upstream.interfere = outage

    answer = query(come_back(browser, start(browser, app)))

    assert answer["error"] == error
    assert answer["error_description"]
    assert "code" not in answer


def test_a_refused_app_shows_in_its_health(
    api: httpx.Client, browser: httpx.Client, app: dict[str, Any], provider: Any
) -> None:
    """Section 7, `health`: wrong at the provider, and well again after the next success."""
    path = f"/v1/oauth-apps/{app['id']}"
    api.patch(path, json={"client_secret": "mistyped"})
    answer = query(come_back(browser, start(browser, app)))
    ill = api.get(path).json()["health"]["status"]
    api.patch(path, json={"client_secret": CLIENT_SECRET})
    come_back(browser, start(browser, app))

    assert (answer["error"], ill) == ("server_error", "error")
    assert api.get(path).json()["health"]["status"] == "ok"


def test_a_public_url_is_what_the_provider_hears(
    api: httpx.Client, app: dict[str, Any], settings: Settings, serve: Any
) -> None:
    """The callback is the configured one, whatever a request claims; cookies are secure."""
    public = settings.model_copy(update={"public_url": "https://gangway.test"})
    with serve(public) as url:
        params = {"client_id": app["id"], "redirect_uri": RETURN}
        answer = httpx.get(f"{url}/link/oauth2/start", params=params, headers={"Host": "evil.test"})

    assert query(answer)["redirect_uri"] == "https://gangway.test/link/oauth2/callback/stripe"
    assert re.fullmatch(
        r"__Host-gangway_connect_\S+=\S+; HttpOnly; Max-Age=900; Path=/; SameSite=lax; Secure",
        answer.headers["Set-Cookie"],
    )


def test_a_browser_is_led_on_by_a_page(browser: httpx.Client, app: dict[str, Any], provider: Any) -> None:
    """No redirect: browsers would hold it against the form-action of the provider's page."""
    started = start(browser, app)
    browser.headers["Accept"] = "text/html,application/xhtml+xml;q=0.9"

    page = come_back(browser, started)

    refresh, link = (unescape(each) for each in re.findall(r'(?:url=|href=")(https[^"]+)"', page.text))
    code = parse_qs(urlsplit(link).query)["code"][0]
    assert (page.status_code, "Location" in page.headers) == (200, False)
    assert refresh == link
    assert link.startswith(f"{RETURN}&code=")
    assert "You are being taken back to product.test." in page.text
    assert fetch(browser, app, code).status_code == 200


@pytest.mark.parametrize("more", [{}, {"code": "another"}, {"error": "access_denied"}])
def test_going_back_and_agreeing_again(
    browser: httpx.Client, app: dict[str, Any], provider: list[httpx.Request], more: dict[str, str]
) -> None:
    """A journey ends once; the page says that it has, and the provider is not asked again."""
    started = start(browser, app)
    come_back(browser, started)

    again = come_back(browser, started, **more)

    assert again.status_code == 400
    assert "done already" in again.text
    assert len(provider) == 1


def test_two_tabs(browser: httpx.Client, app: dict[str, Any], provider: Any) -> None:
    """Each journey ends where it belongs, in whatever order."""
    first, second = start(browser, app, state="1"), start(browser, app, state="2")

    assert query(come_back(browser, second))["state"] == "2"
    assert query(come_back(browser, first))["state"] == "1"


def test_people_see_a_page_even_when_all_goes_wrong(
    browser: httpx.Client, app: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not for everybody's eyes")

    monkeypatch.setattr(connect_routes, "any_app", fail)
    browser.headers["Accept"] = "text/html"

    answer = start(browser, app)

    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/html; charset=utf-8")
    assert "Something went wrong here." in answer.text
    assert "eyes" not in answer.text


def test_pages_leave_nothing_behind(browser: httpx.Client, app: dict[str, Any], provider: Any) -> None:
    """No cache, no referrer, no script: the addresses carry codes."""
    started = start(browser, app)
    browser.headers["Accept"] = "text/html"
    pages = [start(browser, app, redirect_uri="<script>"), come_back(browser, started)]

    for answer in (started, *pages):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    for page in pages:
        style = re.search("<style>(.*)</style>", page.text, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert page.headers["Content-Security-Policy"] == (
            f"default-src 'none'; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert "<script" not in page.text


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"code": 1}', b'{"code": "a\\u0000"}', b"code=1&" * 51])
@pytest.mark.parametrize("media", ["application/json", "application/x-www-form-urlencoded"])
def test_malformed_token_requests(browser: httpx.Client, body: bytes, media: str) -> None:
    """Section 1.4: 400 and 422 in the usual shape."""
    answer = browser.post("/link/oauth2/token", content=body, headers={"Content-Type": media})

    assert answer.status_code in {400, 422}
    assert answer.json()["summary"]
