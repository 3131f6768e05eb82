"""`GET /v1/tenants`: for who holds the token, page by page, and filtered as the states add up."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import Session

from foundation.database import Database
from foundation.queue import Role
from models import State, TenantState
from tests.support.rows import NOW, a_connection, a_tenant, add, added
from tests.support.web import TestClient
from worker.app import configure
from worker.settings import Settings
from worker.tenants import state_of
from worker.views import CONNECTIONS_SHOWN
from worker.web import create_app, tenant_pages
from worker.web.tenant_pages import page_of_tenants

TOKEN = {"Authorization": "Bearer a-token-of-operators"}


@pytest.fixture
def web(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings, configure(settings, Role.PUBLISHER))
    with TestClient(app, headers=TOKEN, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "a-token-of-operators",
        "Basic a-token-of-operators",
        "Bearer ä",
    ],
)
@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/tenants/org_1", "/v1/tenants?limit=0"])
def test_token_is_needed(web: TestClient, path: str, header: str) -> None:
    """Without the operator's token nothing is told, not even what would be wrong with the request."""
    answer = web.get(path, headers={"Authorization": header.encode()})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "validation_errors" not in answer.json()


def test_one_tenant_is_shown(web: TestClient, database: Database) -> None:
    """A tenant with its connections, what they wait for, what went wrong and what to do."""
    tenant = a_tenant(external_id="org/1 ?#", metadata_={"crm": 7})
    add(database, tenant)
    wrong = {"error_code": "api_rejected", "error_message": "no", "error_advice": "ask"}
    change = {"code": "invalid_change", "message": "422", "advice": "send another"}
    added(database, tenant, slot="a", state=State.FAILED, sealed_credential="k.sealed", **wrong)
    added(database, tenant, slot="b", state=State.REQUESTED, work={"due_at": NOW, "attempts": 2})
    added(database, tenant, slot="c", state=State.READY, change_problem=change)

    answer = web.get("/v1/tenants/org%2F1%20%3F%23")

    assert answer.status_code == 200
    body = answer.json()
    assert (body["external_id"], body["state"], body["metadata"]) == ("org/1 ?#", "failed", {"crm": 7})
    assert body["connection_count"] == 3
    failed, requested, ready = body["connections"]
    assert failed["error"] == {"code": "api_rejected", "message": "no", "advice": "ask"}
    assert (failed["next_step"], failed["due_at"], failed["change_error"]) == (None, None, None)
    assert (requested["next_step"], requested["attempts"]) == ("credential.capture", 2)
    assert requested["due_at"] == "2026-05-04T12:00:00Z"
    assert (ready["error"], ready["change_error"]) == (None, change)
    assert "sealed" not in answer.text


def test_large_tenant_is_cut_and_says_so(web: TestClient, database: Database) -> None:
    """Of very many connections some are shown, and how many there are; the state is that of all of them."""
    tenant = a_tenant(external_id="large")
    small = a_tenant(external_id="small", created_at=tenant.created_at + timedelta(seconds=1))
    ready = {"state": State.READY, "ready_at": NOW}
    rows = [a_connection(tenant, slot=f"s{n:03}", **ready) for n in range(CONNECTIONS_SHOWN + 1)]
    last = a_connection(tenant, slot="z", state=State.FAILED)
    add(database, tenant, small)
    with database.write() as session:
        session.add_all([*rows, last, a_connection(small, **ready)])

    one = web.get("/v1/tenants/large").json()
    listed = web.get("/v1/tenants").json()["data"]

    assert [each["slot"] for each in one["connections"]] == [row.slot for row in rows[:CONNECTIONS_SHOWN]]
    assert (one["connection_count"], one["state"]) == (CONNECTIONS_SHOWN + 2, "failed")
    assert one["ready_at"] is None
    assert listed[0] == one
    assert (listed[1]["connection_count"], listed[1]["ready_at"]) == (1, "2026-05-04T12:00:00Z")


@pytest.mark.parametrize("path", ["nobody", "%00", "%ff", "a" * 5000, "..%2F..", "nobody/"])
def test_unknown_tenant_is_not_found(web: TestClient, path: str) -> None:
    """Whatever is asked for and is not there is 404."""
    assert web.get(f"/v1/tenants/{path}").status_code == 404


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
def test_pages_hold_everybody_once(web: TestClient, database: Database, limit: int) -> None:
    """Following the cursors gives every tenant once, oldest first, also among those of one instant."""
    tenants = [a_tenant(created_at=NOW + timedelta(seconds=n // 3)) for n in range(7)]
    add(database, *tenants)
    found, cursor = [], None

    while True:
        params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = web.get("/v1/tenants", params=params).json()
        found += [each["external_id"] for each in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert sorted(found) == sorted(each.external_id for each in tenants)
    by_id = {each.external_id: each.created_at for each in tenants}
    assert [by_id[each] for each in found] == sorted(by_id.values())


BAD: list[dict[str, Any]] = [
    {"limit": 0},
    {"limit": 1001},
    {"limit": "many"},
    {"limit": "9" * 30},
    {"state": "happy"},
    {"cursor": "?"},
    {"cursor": "e30="},
    {"cursor": "WzEsMl0="},
    {"cursor": "W10="},
    {"cursor": "bnVsbA=="},
    {"cursor": "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgImEiXQ=="},
    {"cursor": "W1siMjAyNiJdLCBbXV0="},
    {"cursor": "x" * 501},
    {"cursor": "ä"},
]


@pytest.mark.parametrize("params", BAD, ids=str)
def test_bad_parameters_are_named(web: TestClient, params: dict[str, Any]) -> None:
    """422, with the parameter's name."""
    answer = web.get("/v1/tenants", params=params)

    assert answer.status_code == 422
    assert list(answer.json()["validation_errors"]) == list(params)


@pytest.fixture
def every_combination(database: Database) -> dict[TenantState, set[str]]:
    """Tenants with every combination of states, each present and removed, and which state is theirs."""
    sizes = (0, 1, 2, 3, len(State))
    combinations = [c for size in sizes for c in itertools.combinations(State, size)]
    expected: dict[TenantState, set[str]] = {state: set() for state in TenantState}
    with database.write() as session:
        for n, (states, removed) in enumerate(itertools.product(combinations, [False, True])):
            tenant = a_tenant(is_removed=removed, created_at=NOW + timedelta(seconds=n // 3))
            connections = [a_connection(tenant, state=state) for state in states]
            session.add(tenant)
            session.flush()
            session.add_all(connections)
            expected[state_of(tenant, states)].add(tenant.external_id)
    return expected


@pytest.mark.parametrize("few", [0, 10_000], ids=["many connections", "few connections"])
@pytest.mark.parametrize("searched", [40, 10_000], ids=["several searches", "one search"])
def test_filter_agrees_with_the_states(
    database: Database,
    every_combination: dict[TenantState, set[str]],
    monkeypatch: pytest.MonkeyPatch,
    few: int,
    searched: int,
) -> None:
    """For every combination of states, and of being removed, exactly the tenants of a state are found."""
    monkeypatch.setattr(tenant_pages, "FEW", few)
    monkeypatch.setattr(tenant_pages, "SEARCHED", searched)

    with database.read() as session:
        found = {state: list(everyone(session, state)) for state in TenantState}

    assert {state: set(tenants) for state, tenants in found.items()} == every_combination
    assert [len(tenants) for tenants in found.values()] == [len(ids) for ids in every_combination.values()]


def everyone(session: Session, state: TenantState | None, limit: int = 20) -> Iterator[str]:
    """The tenants of all pages."""
    after = None
    while True:
        page = page_of_tenants(session, state, limit, after)
        assert len(page.tenants) <= limit
        yield from (tenant.external_id for tenant in page.tenants)
        after = page.next
        if after is None:
            return


def test_page_with_nobody_leads_on(
    web: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a search ends before it found anybody, the page is empty and has a cursor."""
    monkeypatch.setattr(tenant_pages, "SEARCHED", 2)
    monkeypatch.setattr(tenant_pages, "FEW", 0)
    tenants = [a_tenant(created_at=NOW + timedelta(seconds=n)) for n in range(5)]
    add(database, *tenants)
    for tenant in tenants[:4]:
        added(database, tenant, state=State.READY)
    added(database, tenants[4], state=State.FAILED)

    pages = [web.get("/v1/tenants", params={"state": "failed"}).json()]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(web.get("/v1/tenants", params={"state": "failed", "cursor": cursor}).json())

    assert [len(page["data"]) for page in pages] == [0, 0, 1]


@pytest.mark.parametrize("state", TenantState)
def test_filter_is_asked_for_by_name(web: TestClient, database: Database, state: TenantState) -> None:
    """`?state=` shows the tenants of that state, as they call themselves."""
    for each in State:
        added(database, state=each)

    shown = web.get("/v1/tenants", params={"state": state}).json()["data"]

    assert {each["state"] for each in shown} == {state}


def test_removed_without_connections_is_removed(web: TestClient, database: Database) -> None:
    """Who left before anything was connected is removed, in the list, alone and by the filter."""
    add(database, a_tenant(external_id="gone", is_removed=True), a_tenant(external_id="here"))

    states = {each["external_id"]: each["state"] for each in web.get("/v1/tenants").json()["data"]}

    assert states == {"gone": "removed", "here": "awaiting_credential"}
    assert web.get("/v1/tenants/gone").json()["state"] == "removed"
