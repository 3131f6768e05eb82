"""What holds for every endpoint: tokens, errors, isolation, hostile input (section 1)."""

import base64
import json
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlmodel import col, select

from engine.api import streams
from engine.api.listing import Contained
from engine.settings import Settings
from engine.tables import Consumer
from foundation.database import Database

NOBODYS_ID = "00000000-0000-4000-8000-000000000000"
"""The same in every run, or the processes of a parallel run would not find the same tests."""


@pytest.mark.parametrize(
    ("headers", "summary"),
    [
        ([], "Unauthorized: the Authorization header is missing"),
        (["abc"], "Unauthorized: the Authorization header does not start with Bearer"),
        (["Bearer nobody"], "Unauthorized: unknown or expired token"),
        (["Bearer a", "Bearer b"], "Unauthorized: more than one Authorization header"),
    ],
)
def test_unauthorized(browser: httpx.Client, headers: list[str], summary: str) -> None:
    """Section 1.1: four ways not to be let in, told apart."""
    answer = browser.get("/v1/syncs", headers=[("Authorization", each) for each in headers])

    assert answer.status_code == 401
    assert answer.json() == {"summary": summary}


def test_bootstrap_token_works(browser: httpx.Client, settings: Settings) -> None:
    """A configured token is there from the start, in the default organisation."""
    token = settings.tokens[0].get_secret_value()

    assert browser.get("/v1/syncs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("path", ["credentials", "oauth-apps", "syncs", "streams", "http-consumers"])
@pytest.mark.parametrize("row_id", ["00000000-0000-4000-8000-000000000000", "abc", "1e400", "%00"])
def test_not_found(api: httpx.Client, path: str, row_id: str) -> None:
    """Section 1.4: what never was is 404, whatever the id looks like."""
    noun = {"oauth-apps": "OAuth app"}.get(path, path.removesuffix("s").replace("-", " "))

    answer = api.get(f"/v1/{path}/{row_id}")

    assert answer.status_code == 404
    assert answer.json() == {"summary": f"Not found: no {noun} matching the given id"}


def test_organisations_are_isolated(
    api: httpx.Client,
    server: str,
    database: Database,
    settings: Settings,
    sync_body: dict[str, Any],
    other: httpx.Client,
) -> None:
    """Nothing of another organisation can be seen, referred to or changed."""
    sync = api.post("/v1/syncs", json=sync_body).json()
    paths = [
        f"/v1/syncs/{sync['id']}",
        f"/v1/credentials/{sync['credential_id']}",
        f"/v1/streams/{sync['stream_id']}",
    ]

    assert [other.get(path).status_code for path in paths] == [404] * 3
    assert [other.delete(path).status_code for path in paths] == [404] * 3
    assert other.patch(paths[0], json={"name": "x"}).status_code == 404
    assert other.get("/v1/syncs").json() == {"data": []}
    assert other.post("/v1/syncs", json=sync_body).status_code == 422
    assert other.post("/v1/http-consumers", json={"stream_id": sync["stream_id"]}).status_code == 422


def cursor_of(moment: str) -> str:
    """A cursor of ours, whatever its moment."""
    return base64.urlsafe_b64encode(f"{moment} {NOBODYS_ID}".encode()).decode()


@pytest.mark.parametrize(
    "query",
    [
        "metadata=nonsense",
        "metadata=1",
        'metadata={"a":"\\u0000"}',
        "limit=0",
        "limit=99999999999999999999999",
        "limit=x",
        "cursor=x",
        "cursor=AAAA",
        f"cursor={cursor_of('0001-01-01T00:00:00+14:00')}",
        f"cursor={cursor_of('9999-12-31T23:59:59-14:00')}",
        "metadata=" + '{"a":' * 50 + "1" + "}" * 50,
        "metadata=" + '{"a":' * 900 + "1" + "}" * 900,
        f"metadata={json.dumps({'a': list(range(5_000))})}",
        f"metadata={json.dumps({'a': list(range(50))})}",
        f"metadata={json.dumps({'a': 'x' * 10_000})}",
    ],
)
def test_hostile_queries(api: httpx.Client, query: str) -> None:
    """Section 1.4: bad parameters are 400."""
    answer = api.get(f"/v1/syncs?{query}")

    assert answer.status_code == 400
    assert answer.json()["summary"]


WIDEST = {"a": [{"b": number} for number in range(23)]}
DEEPEST = {"a": [{"b": [{"c": [{"d": 1}]}]}]}


@pytest.mark.parametrize("path", ["syncs", "credentials", "oauth-apps", "http-consumers"])
@pytest.mark.parametrize("wanted", [WIDEST, DEEPEST], ids=["widest", "deepest"])
def test_the_largest_filters(api: httpx.Client, path: str, wanted: Any) -> None:
    """Section 2.4: what a filter may hold at most is answered on every database."""
    answer = api.get(f"/v1/{path}", params={"metadata": json.dumps(wanted)})

    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == []


def test_filters_leave_no_memory_behind(api: httpx.Client, database: Database) -> None:
    """A filter's shape is the caller's: the statements of all shapes would fill the memory."""
    with database.read() as session:
        compiled = session.get_bind().engine._compiled_cache
        assert compiled is not None
        before = len(compiled)
        for width in range(1, 40):
            wanted = Contained({"a": [*range(width)]}, database.is_sqlite)
            session.exec(select(Consumer).where(wanted.within(col(Consumer.meta)))).all()

    assert len(compiled) - before <= 1


@pytest.mark.parametrize("query", ["name=%00", "provider=%00", "external_id=%ff", "health.status=%00"])
def test_odd_filters_match_nothing_or_are_refused(api: httpx.Client, query: str) -> None:
    """A filter no name can equal is not a server error."""
    assert api.get(f"/v1/syncs?{query}").status_code in {200, 400}


def test_content_type_is_not_insisted_on(api: httpx.Client) -> None:
    """A JSON body without a content type is read all the same."""
    request = api.build_request("POST", "/v1/streams", content=b'{"slug": "plain"}')
    request.headers.pop("Content-Type", None)

    assert api.send(request).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/syncs", "GET, POST"),
        ("/v1/syncs/8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8", "GET, PATCH, DELETE"),
        ("/v1/credentials/start-auth", "GET, PATCH, DELETE"),
        ("/link/oauth2/token", "POST"),
        ("/healthz", "GET"),
    ],
)
def test_unknown_methods(browser: httpx.Client, path: str, methods: str) -> None:
    """RFC 9110, 15.5.6: the refusal names every method that the path has."""
    answer = browser.put(path)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == methods
    assert answer.json() == {"summary": "Method Not Allowed"}


def test_json_in_json_out(api: httpx.Client, sync_body: dict[str, Any]) -> None:
    """Section 1.1: whether it went well or not."""
    answers = [
        api.post("/v1/syncs", json=sync_body),
        api.get("/v1/syncs"),
        api.get("/v1/syncs/nothing"),
        api.post("/v1/syncs", json={}),
        api.get("/nothing"),
    ]

    assert [each.status_code for each in answers] == [200, 200, 404, 422, 404]
    assert {each.headers["Content-Type"] for each in answers} == {"application/json"}


def test_a_mistake_of_ours(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 1.4: even a 500 has a summary, which tells nothing of what is inside."""

    def fail(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(streams, "find", fail)

    answer = api.get("/v1/streams/8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8")

    assert (answer.status_code, answer.json()) == (500, {"summary": "Internal error"})


def test_probes(browser: httpx.Client) -> None:
    assert browser.get("/healthz").json() == {"status": "ok"}
    assert browser.get("/readyz").status_code == 200


def test_numbers_of_any_size(api: httpx.Client, stream: str) -> None:
    """Section 2.1: metadata is free-form JSON; whole numbers beyond 64 bits are kept and found exactly."""
    metadata = {"n": 10**30, "deep": [{"n": -(2**63) - 1}]}

    created = api.post("/v1/http-consumers", json={"stream_id": stream, "metadata": metadata}).json()
    found = api.get("/v1/http-consumers", params={"metadata": json.dumps(metadata)}).json()["data"]

    assert created["metadata"] == metadata
    assert found == [created]


@pytest.mark.parametrize("value", ["5", True, 5.5, [5]])
def test_numbers_are_numbers(api: httpx.Client, sync_body: dict[str, Any], value: Any) -> None:
    """Sections 2.1, 5.1 and 10.1: a text or a truth value is none, in whichever body."""
    consumer = api.post("/v1/http-consumers", json={"stream_id": sync_body["stream_id"]}).json()["id"]
    limit = {"allowed_requests": 5, "interval": value}

    answers = [
        api.post("/v1/syncs", json=sync_body | {"max_age_days": value, "rate_limit": limit}),
        api.patch(f"/v1/http-consumers/{consumer}", json={"max_ack_pending": value}),
        api.post(f"/v1/http-consumers/{consumer}/next", json={"batch_size": value}),
    ]

    assert [set(answer.json()["validation_errors"]) for answer in answers] == [
        {"max_age_days", "rate_limit"},
        {"max_ack_pending"},
        {"batch_size"},
    ]


def test_request_id_is_echoed(api: httpx.Client) -> None:
    assert api.get("/healthz", headers={"X-Request-Id": "signup-7"}).headers["X-Request-Id"] == "signup-7"


def test_a_late_create_creates_nothing(
    api: httpx.Client, settings: Settings, stream: str, serve: Any
) -> None:
    """Section 1.4: 504, and a request that cannot commit within the deadline is undone and says so."""
    hasty = settings.model_copy(
        update={"request_deadline_s": 1e-6, "tokens": (SecretStr("a-token-in-haste"),)}
    )
    with serve(hasty) as url:
        late = api.post(f"{url}/v1/streams", json={"slug": "late"})

    assert late.status_code == 504
    assert [each["slug"] for each in api.get("/v1/streams").json()["data"]] == ["main"]
