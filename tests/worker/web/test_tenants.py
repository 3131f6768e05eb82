"""`GET /v1/tenants`: for who holds the token, page by page, and filtered as the states add up."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from foundation.database import Database
from foundation.queue import Role
from models import State, Tenant, TenantState
from tests.support.rows import NOW, a_connection, a_tenant, add, added
from tests.support.web import TestClient
from worker.app import configure
from worker.settings import Settings
from worker.tenants import state_of
from worker.web import create_app
from worker.web.tenant_states import having_state

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
    added(database, tenant, state=State.FAILED, due_at=None, sealed_credential="k.sealed", **wrong)
    added(database, tenant, state=State.REQUESTED, due_at=NOW)

    answer = web.get("/v1/tenants/org%2F1%20%3F%23")

    assert answer.status_code == 200
    body = answer.json()
    assert (body["external_id"], body["state"], body["metadata"]) == ("org/1 ?#", "failed", {"crm": 7})
    failed, requested = body["connections"]
    assert failed["error"] == {"code": "api_rejected", "message": "no", "advice": "ask"}
    assert failed["next_step"] is None
    assert requested["next_step"] == "credential.capture"
    assert requested["due_at"] == "2026-05-04T12:00:00Z"
    assert "sealed" not in answer.text


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


def test_filter_agrees_with_the_states(database: Database) -> None:
    """For every combination of states, and of being removed, exactly the tenants of a state are found."""
    sizes = (0, 1, 2, 3, len(State))
    combinations = [c for size in sizes for c in itertools.combinations(State, size)]
    expected: dict[str, set[str]] = {state: set() for state in TenantState}
    with database.write() as session:
        for states, removed in itertools.product(combinations, [False, True]):
            tenant = a_tenant(is_removed=removed)
            connections = [a_connection(tenant, state=state) for state in states]
            session.add(tenant)
            session.flush()
            session.add_all(connections)
            expected[state_of(tenant, connections)].add(tenant.external_id)

    with database.read() as session:
        found = {
            state: set(session.exec(select(Tenant.external_id).where(having_state(state))))
            for state in TenantState
        }

    assert found == expected


def test_filter_is_asked_for_by_name(web: TestClient, database: Database) -> None:
    """`?state=` shows the tenants of that state."""
    ready = added(database, state=State.READY)
    added(database, state=State.FAILED)

    (shown,) = web.get("/v1/tenants", params={"state": "ready"}).json()["data"]

    assert [each["id"] for each in shown["connections"]] == [str(ready.id)]
