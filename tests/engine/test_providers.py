"""Backfills of each provider through the real reader, against fakes that follow the providers' references."""

from dataclasses import replace
from threading import Event
from typing import Any
from uuid import UUID

import fakeredis
import httpx
import pytest
from sqlmodel import col, select

from engine.backfill.pace import Pace
from engine.collections.inspect import Inspector
from engine.oauth_apps import OAuthClient
from engine.tables import Progress
from foundation.database import Database, utc_now
from tests.engine.provider_cases import (
    Case,
    KilledError,
    github,
    held,
    hubspot,
    make_due,
    salesforce,
    shopify,
)
from tests.peers.providers.hubspot import HubSpot
from tests.peers.providers.refusals import Fake
from tests.peers.providers.salesforce import Salesforce
from tests.peers.providers.shopify import Shopify


@pytest.fixture(params=[hubspot, github, salesforce, shopify], ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


def test_backfill(api: httpx.Client, database: Database, worker: Any, start: Any, case: Case) -> None:
    """Everything is read, each object once, and the sync is healthy and complete."""
    path, ids = start(case)

    assert list(worker(case).read(ids)) == []

    sync = api.get(path).json()
    assert sync["health"]["status"] == "healthy", sync["health"]
    assert sync["initial_backfill_completed_at"] is not None
    assert held(database, path) == case.expected


def test_killed_midway(database: Database, worker: Any, start: Any, case: Case) -> None:
    """Killed at every other request, it is read to the end all the same, and not from the start again."""
    path, ids = start(case)
    arrived, survived = case.fake, [0]

    def fragile(request: httpx.Request) -> httpx.Response:
        survived[0] += 1
        if survived[0] % 3 == 0:
            raise KilledError
        answer: httpx.Response = arrived(request)
        return answer

    reader = worker(Case(fragile, case.properties, case.expected, case.app))
    for _ in range(60):
        try:
            reader.read(ids)
            break
        except KilledError:
            make_due(database, *_unfinished(database, ids))

    assert held(database, path) == case.expected
    pages = [request for request in arrived.requests if request.method == "GET"]
    paths = [str(request.url) for request in pages]
    assert len(paths) == len(set(paths)) + _shared_walks(case)


def _unfinished(database: Database, ids: list[UUID]) -> list[UUID]:
    with database.read() as session:
        wanted = select(Progress.id).where(col(Progress.id).in_(ids), col(Progress.done_at).is_(None))
        return list(session.exec(wanted))


def _shared_walks(case: Case) -> int:
    """GitHub's repositories are listed once for each collection; every other page is asked for once."""
    return {"github": 4}.get(case.provider, 0)


def test_a_spent_token_is_renewed(api: httpx.Client, database: Database, worker: Any, start: Any) -> None:
    """A 401 in the middle costs one refresh, not the credential."""
    case = hubspot()
    path, ids = start(case, "hubspot:contact")
    served = case.fake

    def forgetful(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("after") == "100" and served.issued == 1:
            served.expire()
        answer: httpx.Response = served(request)
        return answer

    worker(Case(forgetful, case.properties, case.expected, case.app)).read(ids)

    assert served.issued == 2
    assert held(database, path) == {"hubspot:contact": 250}
    assert api.get(path).json()["health"]["status"] == "healthy"


def test_refused_after_a_renewal(api: httpx.Client, database: Database, worker: Any, start: Any) -> None:
    """A provider that refuses the new token too refuses the credential; it was asked for one new token."""
    case = hubspot()
    path, ids = start(case, "hubspot:contact")
    served = case.fake

    def stubborn(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(401, json={})
        answer: httpx.Response = served(request)
        return answer

    worker(Case(stubborn, case.properties, case.expected, case.app)).read(ids)

    assert served.issued == 2
    assert api.get(path).json()["health"]["reason"]["code"] == "credential_rejected"


def test_links_that_lead_away_are_not_followed(
    api: httpx.Client, database: Database, worker: Any, start: Any
) -> None:
    """The failure says what happened, and the token stays."""
    case = shopify()
    path, ids = start(case, "shopify:product")
    asked = []

    def hostile(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        link = '<http://169.254.169.254/latest/meta-data>; rel="next"'
        return httpx.Response(200, json={"products": [{"id": 1}]}, headers={"Link": link})

    worker(Case(hostile, case.properties, case.expected)).read(ids)

    reason = api.get(path).json()["health"]["reason"]
    assert reason["code"] == "collection_failed"
    assert "leaves choam.myshopify.com" in reason["message"]
    assert asked == ["choam.myshopify.com"]


def test_spent_limits_are_waited_for(api: httpx.Client, database: Database, worker: Any, start: Any) -> None:
    """GitHub's 403 with nothing remaining pauses the sync until the reset and rejects nothing."""
    case = github()
    case.fake.remaining = 0
    path, ids = start(case, "github:pull_request")

    worker(case).read(ids)

    with database.read() as session:
        due_at = session.get_one(Progress, ids[0]).due_at
    assert due_at is not None
    assert 590 < (due_at - utc_now()).total_seconds() < 602
    assert api.get(path).json()["health"]["reason"]["code"] == "rate_limited"


def test_limits_are_not_run_into(api: httpx.Client, database: Database, worker: Any, start: Any) -> None:
    """The answer that says that nothing remains is stored, and all of the sync rests without a refusal."""
    case = github()
    case.fake.remaining = 3
    path, ids = start(case, "github:pull_request", "github:issue")

    worker(case).read(ids)

    assert len([each for each in case.fake.requests if each.method == "GET"]) == 3
    assert held(database, path) == {"github:pull_request": 120}
    assert api.get(path).json()["health"]["status"] == "healthy"
    with database.read() as session:
        due = session.exec(select(Progress.due_at).where(col(Progress.id).in_(ids))).all()
    assert all(each and (each - utc_now()).total_seconds() > 590 for each in due)


def test_missing_permission_is_the_collection_s(api: httpx.Client, worker: Any, start: Any) -> None:
    """A 403 for want of a scope fails one collection; the credential and the others go on."""
    case = shopify()
    path, ids = start(case, "shopify:order", "shopify:product")
    served = case.fake

    def scoped(request: httpx.Request) -> httpx.Response:
        answer: httpx.Response = served(request)
        return httpx.Response(403, json={}) if "orders" in request.url.path else answer

    worker(Case(scoped, case.properties, case.expected)).read(ids)

    sync = api.get(path).json()
    assert sync["health"]["reason"]["collection_id"] == "shopify:order"
    assert api.get(f"/v1/credentials/{sync['credential_id']}").json()["health"]["status"] == "ok"


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"kind": "shopify_key", "shop": "evil.test/", "access_token": "x"}, "shop"),
        (
            {"kind": "salesforce_oauth2", "instance_url": "https://127.0.0.1", "refresh_token": "x"},
            "instance_url",
        ),
        (
            {"kind": "salesforce_oauth2", "instance_url": "http://a.salesforce.com", "refresh_token": "x"},
            "instance_url",
        ),
    ],
)
def test_addresses_of_others_are_refused(api: httpx.Client, properties: Any, field: str) -> None:
    """A credential cannot point the engine anywhere but at its provider."""
    answer = api.post("/v1/credentials", json={"properties": properties})

    assert answer.status_code == 422
    assert "must lead to *." in answer.json()["validation_errors"]["properties"][field][0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            {"kind": "hubspot_oauth2", "hub_id": 1, "refresh_token": "a"},
            {"kind": "hubspot_oauth2", "hub_id": "1", "refresh_token": "b"},
        ),
        (
            {"kind": "github_app", "installation_id": 1},
            {"kind": "github_app", "installation_id": "1", "account_login": "choam"},
        ),
    ],
)
def test_same_account(api: httpx.Client, first: Any, second: Any) -> None:
    """The properties that name the upstream account name the credential (section 6.1, 14 row 10)."""
    ids = {api.post("/v1/credentials", json={"properties": each}).json()["id"] for each in (first, second)}

    assert len(ids) == 1


def test_shop_tells_its_account(api: httpx.Client, upstream: Any) -> None:
    """Two tokens of one shop are one credential."""
    fake = Shopify()
    upstream.interfere = fake
    for fake.token in ("shpat_1", "shpat_2"):
        properties = {"kind": "shopify_key", "shop": "choam", "access_token": fake.token}
        assert api.post("/v1/credentials", json={"properties": properties}).status_code == 200

    assert len(api.get("/v1/credentials").json()["data"]) == 1


def test_shop_whose_tokens_expire(api: httpx.Client, database: Database, worker: Any, start: Any) -> None:
    """A refresh token is used where there is one; the access token beside it may be long over."""
    case = shopify()
    case.app = OAuthClient(*case.fake.client)
    case.properties |= {"access_token": "shpat_0", "refresh_token": "shprt_1"}
    path, ids = start(case, "shopify:product")

    worker(case).read(ids)

    assert held(database, path) == {"shopify:product": 520}
    assert case.fake.refresh_token == "shprt_11"
    assert api.get(path).json()["health"]["status"] == "healthy"


def test_fakes_are_strict() -> None:
    """The fakes refuse what the real ones refuse: other hosts, no token, too large pages, odd parameters."""
    shop, hub = Shopify(), HubSpot(access_tokens=["t"])
    shop.fill("/products", 1)
    hub.fill("/crm/objects/2026-03/contacts", 1)
    products = "https://choam.myshopify.com/admin/api/2026-04/products.json"
    contacts = "https://api.hubapi.com/crm/objects/2026-03/contacts"
    token, bearer = {"X-Shopify-Access-Token": "shpat_1"}, {"Authorization": "Bearer t"}

    def status(fake: Fake, url: str, headers: dict[str, str], body: object = None) -> int:
        method = "GET" if body is None else "POST"
        return fake(httpx.Request(method, url, headers=headers, json=body)).status_code

    assert status(shop, products, {}) == 401
    assert status(shop, f"{products}?limit=251", token) == 400
    assert status(shop, f"{products}?page_info=products:0&status=any", token) == 400
    assert status(shop, f"{products}?page_info=orders:0", token) == 400
    assert status(hub, f"{contacts}?limit=101", bearer) == 400
    assert status(hub, f"{contacts}?page=2", bearer) == 400
    assert status(hub, f"{contacts}/search", bearer) == 404
    assert status(hub, f"{contacts}/search", bearer, {"limit": 200}) == 200
    assert status(hub, f"{contacts}/search", bearer, {"limit": 201}) == 400
    assert status(hub, f"{contacts}/search", bearer, {"limit": 200, "after": "9900"}) == 400
    assert status(hub, f"{contacts}/search", bearer, {"filters": []}) == 400
    with pytest.raises(httpx.ConnectError):
        status(hub, "http://api.hubapi.com/", bearer)


@pytest.mark.parametrize(
    ("soql", "code"),
    [
        ("SELECT FIELDS(ALL) FROM Contact LIMIT 200", 200),
        ("SELECT FIELDS(STANDARD) FROM Contact", 200),
        ("SELECT FIELDS(ALL) FROM Contact", 400),
        ("SELECT FIELDS(ALL) FROM Contact LIMIT 201", 400),
        ("SELECT FIELDS(ALL) FROM Contact WHERE Id > '' LIMIT 9", 400),
        ("SELECT FIELDS(ALL) FROM Contact WHERE SystemModstamp >= '2026-01-01T00:00:00Z' LIMIT 9", 400),
        ("SELECT FIELDS(ALL) FROM Contact WHERE SystemModstamp >= 2026-01-01 LIMIT 9", 400),
        ("SELECT FIELDS(ALL) FROM Nothing LIMIT 9", 400),
    ],
)
def test_queries_are_read_strictly(soql: str, code: int) -> None:
    """Salesforce's fake refuses unlimited custom fields, what is no id and what is no instant."""
    org = Salesforce(access_tokens=["t"])
    org.fill("Contact", 1)
    url = f"https://{org.host}/services/data/v60.0/queryAll"

    answer = org(httpx.Request("GET", url, params={"q": soql}, headers={"Authorization": "Bearer t"}))

    assert answer.status_code == code


def test_a_missing_permission_costs_no_token(api: httpx.Client, worker: Any, start: Any) -> None:
    """Another token would be refused as well: the collection is in trouble, and the others are read."""
    case = hubspot(3)
    path, ids = start(case)

    def refusing(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403) if "contacts" in request.url.path else case.fake(request)

    worker(replace(case, fake=refusing)).read(ids)

    assert case.fake.issued == 1
    assert api.get(path).json()["health"]["reason"]["collection_id"] == "hubspot:contact"


def test_an_inspection_goes_on_with_the_renewed_token(
    api: httpx.Client, worker: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One collection meets the end of a token, the later ones ask with the next."""
    monkeypatch.setattr(Pace, "wait_s", lambda *_, **__: 0.0)
    case = hubspot(3)
    path, _ = start(case)
    reader = worker(case)
    inspector = Inspector(
        reader.database, reader.authority, reader.client, Pace(fakeredis.FakeRedis()), Event()
    )
    collections = f"/v1/collections/{api.get(path).json()['credential_id']}"
    for _ in range(2):
        api.post(f"{collections}/refresh/start")
        inspector.refresh(UUID(collections.rpartition("/")[2]))
        case.fake.expire()

    asked = [each.headers.get("authorization") for each in case.fake.requests]
    assert api.get(f"{collections}/refresh/status").json()["status"] == "succeeded"
    assert case.fake.issued == 2
    assert "Bearer access-1" not in asked[asked.index("Bearer access-2") :]
