"""What providers refuse and what becomes of it, request by request."""

from typing import Any

import httpx
import pytest

from engine.backfill.fetch import Access, FetchError
from engine.health import TroubleCode
from engine.providers.catalogue import load_catalogue
from tests.engine.pages import page_at
from tests.peers.providers.airtable import Airtable
from tests.peers.providers.auth0 import Auth0
from tests.peers.providers.linear import Linear
from tests.peers.providers.marketo import Marketo
from tests.peers.providers.netsuite import NetSuite
from tests.peers.providers.quickbooks import QuickBooks
from tests.peers.providers.refusals import Fake
from tests.peers.providers.sendgrid import SendGrid
from tests.peers.providers.servicenow import ServiceNow
from tests.peers.providers.tokens import Tokens

CATALOGUE = load_catalogue({})
BEARER = {"Authorization": "Bearer t"}
ISSUES = (
    "query($first: Int!, $after: String) { found: issues(first: $first, after: $after, "
    "includeArchived: true) { nodes { id } pageInfo { hasNextPage endCursor } } }"
)


def airtable() -> Airtable:
    fake = Airtable(tokens=Tokens(good=["t"], in_header=True))
    fake.fill("app1", "tbl1", 1)
    return fake


def auth0() -> Auth0:
    return Auth0(tokens=Tokens(good=["t"]), objects={"users": [], "organizations": [], "roles": []})


def quickbooks() -> QuickBooks:
    fake = QuickBooks(tokens=Tokens(good=["t"], in_header=True))
    fake.fill("Customer", 1)
    return fake


def sendgrid() -> SendGrid:
    return SendGrid(key="t", objects={"/templates": [], "/suppression/bounces": []})


def servicenow() -> ServiceNow:
    fake = ServiceNow(tokens=Tokens(good=["t"]))
    fake.fill("incident", 1)
    return fake


def linear(trouble: str | None = None) -> Linear:
    fake = Linear(tokens=Tokens(good=["t"]), trouble=trouble)
    fake.fill("issues", 1)
    return fake


def netsuite() -> NetSuite:
    fake = NetSuite(tokens=Tokens(good=["t"]))
    fake.fill("customer", 1)
    return fake


def marketo() -> Marketo:
    fake = Marketo(tokens=Tokens(good=["t"]))
    fake.fill("programs", 1)
    return fake


def busy(fake: Any) -> Any:
    fake.is_busy = True
    return fake


def spent(fake: Any) -> Any:
    fake.left = 0
    return fake


def troubled(code: str) -> Marketo:
    fake = marketo()
    fake.trouble = code
    return fake


@pytest.mark.parametrize(
    ("fake", "properties", "collection_id", "code", "wait_s"),
    [
        (busy(airtable()), {}, "airtable:base", TroubleCode.RATE_LIMITED, 30),
        (airtable(), {}, "airtable:base", None, None),
        (spent(auth0()), {"domain": "choam.eu.auth0.com"}, "auth0:user", TroubleCode.RATE_LIMITED, 15),
        (auth0(), {"domain": "choam.eu.auth0.com"}, "auth0:log", TroubleCode.COLLECTION_FAILED, None),
        (
            busy(quickbooks()),
            {"realm_id": 9130357849536906},
            "quickbooks:customer",
            TroubleCode.RATE_LIMITED,
            60,
        ),
        (quickbooks(), {"realm_id": 1}, "quickbooks:customer", TroubleCode.CREDENTIAL_REJECTED, None),
        (busy(linear()), {}, "linear:issue", TroubleCode.RATE_LIMITED, 60),
        (linear("authentication error"), {}, "linear:issue", TroubleCode.CREDENTIAL_REJECTED, None),
        (linear("feature not accessible"), {}, "linear:issue", TroubleCode.COLLECTION_FAILED, None),
        (linear("internal error"), {}, "linear:issue", TroubleCode.PROVIDER_UNAVAILABLE, None),
        (linear("unheard of"), {}, "linear:issue", TroubleCode.COLLECTION_FAILED, None),
        (linear(), {}, "linear:document", TroubleCode.COLLECTION_FAILED, None),
        (busy(netsuite()), {"account_id": "1234567-sb1"}, "netsuite:item", TroubleCode.RATE_LIMITED, None),
        (netsuite(), {"account_id": "1234567-sb1"}, "netsuite:item", TroubleCode.COLLECTION_FAILED, None),
        (spent(sendgrid()), {}, "sendgrid:bounce", TroubleCode.RATE_LIMITED, 40),
        (busy(servicenow()), {"instance": "choam"}, "servicenow:incident", TroubleCode.RATE_LIMITED, 1800),
        (servicenow(), {"instance": "choam"}, "servicenow:problem", TroubleCode.COLLECTION_FAILED, None),
        (troubled("606"), {"munchkin_id": "123-ABC-456"}, "marketo:program", TroubleCode.RATE_LIMITED, 20),
        (
            troubled("602"),
            {"munchkin_id": "123-ABC-456"},
            "marketo:program",
            TroubleCode.CREDENTIAL_REJECTED,
            None,
        ),
        (
            troubled("603"),
            {"munchkin_id": "123-ABC-456"},
            "marketo:program",
            TroubleCode.COLLECTION_FAILED,
            None,
        ),
        (
            troubled("608"),
            {"munchkin_id": "123-ABC-456"},
            "marketo:program",
            TroubleCode.PROVIDER_UNAVAILABLE,
            None,
        ),
    ],
)
def test_whose_trouble(
    fake: Fake, properties: Any, collection_id: str, code: TroubleCode | None, wait_s: float | None
) -> None:
    """A refusal is understood as the provider means it, and so is how long to stay away."""
    provider = CATALOGUE[collection_id.partition(":")[0]]
    bound = provider.bound(next(iter(provider.credential_kinds)), properties)
    access = Access(provider.root(properties), "t")

    with httpx.Client(transport=httpx.MockTransport(fake)) as client:
        if code is None:
            page_at(client, bound, collection_id, access, None)
            return
        with pytest.raises(FetchError) as failed:
            page_at(client, bound, collection_id, access, None)

    failure = failed.value.failure
    assert failure.code is code, failure
    assert failure.retry_after_s == (wait_s and pytest.approx(wait_s, abs=2))


@pytest.mark.parametrize(
    ("fake", "path", "status"),
    [
        (airtable(), "/v0/meta/bases?pageSize=10", 400),
        (airtable(), "/v0/app1/tbl1?pageSize=101", 400),
        (airtable(), "/v0/app1/tbl1?offset=app1/tbl1:1", 422),
        (airtable(), "/v0/app1/tbl1?filterByFormula=TRUE", 422),
        (airtable(), "/v0/app1/tbl9", 403),
        (auth0(), "/api/v2/users?per_page=100&q=created_at:[1 TO *]&sort=created_at:1", 400),
        (auth0(), "/api/v2/users?page=20&q=created_at:[1 TO *]&sort=created_at:1", 400),
        (auth0(), "/api/v2/users?q=created_at:[1 TO *]", 400),
        (auth0(), "/api/v2/organizations?take=51", 400),
        (auth0(), "/api/v2/roles?page=20", 400),
        (quickbooks(), "/v3/company/9130357849536906/query?query=select * from Customer", 406),
        (sendgrid(), "/v3/templates", 400),
        (sendgrid(), "/v3/templates?page_size=201", 400),
        (sendgrid(), "/v3/suppression/bounces?limit=501", 400),
        (sendgrid(), "/v3/suppression/bounces?page=2", 400),
        (servicenow(), "/api/now/table/incident?sysparm_query=ORDERBYnumber", 400),
        (servicenow(), "/api/now/table/incident?limit=1", 400),
    ],
)
def test_fakes_are_strict(fake: Fake, path: str, status: int) -> None:
    """They refuse what the real ones refuse, whoever asks, and everything without a token."""
    url = f"https://{fake.host}{path}"

    assert fake(httpx.Request("GET", url, headers=BEARER)).status_code == status
    assert fake(httpx.Request("GET", url)).status_code == 401
    with pytest.raises(httpx.ConnectError):
        fake(httpx.Request("GET", url.replace("https", "http"), headers=BEARER))


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "{ issues { nodes { id } } }"},
        {"query": ISSUES.replace("includeArchived: true", ""), "variables": {"first": 1}},
        {"query": ISSUES.replace("{ id }", "{ id nothingOfTheKind }"), "variables": {"first": 1}},
        {"query": ISSUES.replace("{ id }", "{ id state }"), "variables": {"first": 1}},
        {"query": ISSUES.replace("{ id }", "{ id title { id } }"), "variables": {"first": 1}},
        {"query": ISSUES, "variables": {"first": 251}},
        {"query": ISSUES, "variables": {"first": 1, "since": "2026-01-01T00:00:00Z"}},
    ],
)
def test_linear_s_fake_is_strict(asked: Any) -> None:
    """It refuses what its schema does not have."""
    url = "https://api.linear.app/graphql"

    assert linear()(httpx.Request("POST", url, headers=BEARER, json=asked)).status_code == 400
    assert linear()(httpx.Request("POST", url, json=asked)).status_code == 401
    good = {"query": ISSUES, "variables": {"first": 1}}
    assert linear()(httpx.Request("POST", url, headers=BEARER, json=good)).status_code == 200


def test_marketo_s_fake_is_strict() -> None:
    """It refuses with a status of success."""
    url = "https://123-abc-456.mktorest.com/rest/asset/v1/programs.json"

    for path, headers in ((url, {}), (f"{url}?maxReturn=201", BEARER), (url[:-5], BEARER)):
        answer = marketo()(httpx.Request("GET", path, headers=headers))
        assert (answer.status_code, answer.json()["success"]) == (200, False)


@pytest.mark.parametrize(
    "fake",
    [Airtable(), Auth0(), Linear(), QuickBooks(), ServiceNow(), Marketo(), NetSuite()],
    ids=lambda each: each.host,
)
def test_token_endpoints_are_strict(fake: Any) -> None:
    """No token for another client, another grant, or a refresh token that was replaced."""
    host = fake.token_host or fake.host
    paths = (
        "/oauth2/v1/token",
        "/oauth/token",
        "/oauth2/v1/tokens/bearer",
        "/oauth_token.do",
        "/identity/oauth/token",
        "/services/rest/auth/oauth2/v1/token",
    )
    form = {"grant_type": "refresh_token", "refresh_token": "refresh-0"}
    wrong = {"client_id": "client-1", "client_secret": "wrong"}

    for asked in (form, form | wrong, form | {"grant_type": "password", "client_id": "client-1"}):
        answers = [fake(httpx.Request("POST", f"https://{host}{path}", data=asked)) for path in paths]
        assert not any(each.is_success and "access_token" in each.text for each in answers)


def test_user_name_and_password() -> None:
    """A kind may carry its secret in a way of its own."""
    provider = CATALOGUE["servicenow"]
    values = {"instance": "choam", "username": "integration", "password": "integration-password"}
    grant = provider.credential_kinds["servicenow_password"].grant
    access = Access("https://choam.service-now.com", grant.token(values))  # type: ignore[union-attr]  # it is Basic

    with httpx.Client(transport=httpx.MockTransport(servicenow())) as client:
        bound = provider.bound("servicenow_password", values)
        assert len(page_at(client, bound, "servicenow:incident", access, None).records) == 1
