"""What holds for every endpoint: tokens, errors, isolation, hostile input (contract 1)."""

from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from engine.settings import Settings
from foundation.database import Database


@pytest.mark.parametrize(
    ("headers", "summary"),
    [
        ({}, "Unauthorized: the Authorization header is missing"),
        ({"Authorization": "abc"}, "Unauthorized: the Authorization header does not start with Bearer"),
        ({"Authorization": "Bearer nobody"}, "Unauthorized: unknown or expired token"),
    ],
)
def test_unauthorized(server: str, headers: dict[str, str], summary: str) -> None:
    """Contract 1.1: three ways not to be let in, told apart."""
    answer = httpx.get(f"{server}/v1/syncs", headers=headers)

    assert answer.status_code == 401
    assert answer.json() == {"summary": summary}


def test_bootstrap_token_works(server: str, settings: Settings) -> None:
    """A configured token is there from the start, in the default organisation."""
    token = settings.tokens[0].get_secret_value()

    assert httpx.get(f"{server}/v1/syncs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("path", ["credentials", "oauth-apps", "syncs", "streams", "http-consumers"])
@pytest.mark.parametrize("row_id", ["00000000-0000-4000-8000-000000000000", "abc", "1e400", "%00"])
def test_not_found(api: httpx.Client, path: str, row_id: str) -> None:
    """Contract 1.4: what never was is 404, whatever the id looks like."""
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


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b'{"name": "\xff"}',
        b'{"name": "a\\u0000b"}',
        b'{"name": "\\ud800"}',
        b'{"metadata": {"n": 9223372036854775808}}',
        b'{"metadata": {"n": 1e999}}',
        b'{"metadata": {"n": NaN}}',
        b'{"max_age_days": 9223372036854775807}',
        b"[" * 100_000,
        b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"n": ' + b"9" * 10_000 + b"}",
        b" " * (1024 * 1024 + 1),
    ],
)
@pytest.mark.parametrize("path", ["/v1/credentials", "/v1/syncs", "/v1/streams", "/v1/http-consumers"])
def test_hostile_bodies(api: httpx.Client, path: str, content: bytes) -> None:
    """Whatever is sent is refused by name, never by a 500."""
    answer = api.post(path, content=content, headers={"Content-Type": "application/json"})

    assert 400 <= answer.status_code < 500
    assert answer.json()["summary"]


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
    ],
)
def test_hostile_queries(api: httpx.Client, query: str) -> None:
    """Contract 1.4: bad parameters are 400."""
    answer = api.get(f"/v1/syncs?{query}")

    assert answer.status_code == 400
    assert answer.json()["summary"]


@pytest.mark.parametrize("query", ["name=%00", "provider=%00", "external_id=%ff", "health.status=%00"])
def test_odd_filters_match_nothing_or_are_refused(api: httpx.Client, query: str) -> None:
    """A filter no name can equal is not a server error."""
    assert api.get(f"/v1/syncs?{query}").status_code in {200, 400}


def test_content_type_is_not_insisted_on(api: httpx.Client) -> None:
    """A JSON body without a content type is read all the same."""
    request = api.build_request("POST", "/v1/streams", content=b'{"slug": "plain"}')
    request.headers.pop("Content-Type", None)

    assert api.send(request).status_code == 200


def test_unknown_paths_and_methods(api: httpx.Client) -> None:
    assert api.get("/v1/nothing").json() == {"summary": "Not found: no such path"}
    assert api.put("/v1/syncs", json={}).status_code == 405


def test_documentation_is_served(server: str) -> None:
    """OpenAPI names every operation and its errors."""
    document = httpx.get(f"{server}/openapi.json").json()

    assert httpx.get(f"{server}/docs").status_code == 200
    assert set(document["paths"]) >= {
        "/v1/syncs",
        "/v1/syncs/{sync_id}",
        "/v1/http-consumers/{consumer_id}/next",
    }
    assert "422" in document["paths"]["/v1/syncs"]["post"]["responses"]
    assert httpx.get(f"{server}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server}/readyz").status_code == 200


def test_request_id_is_echoed(api: httpx.Client) -> None:
    assert api.get("/healthz", headers={"X-Request-Id": "signup-7"}).headers["X-Request-Id"] == "signup-7"


def test_a_late_create_creates_nothing(
    api: httpx.Client,
    server: str,
    settings: Settings,
    surroundings: Any,
    sync_body: dict[str, Any],
    serve: Any,
) -> None:
    """A request that cannot commit within the deadline is undone and says so."""
    hasty = settings.model_copy(
        update={"request_deadline_s": 1e-6, "tokens": (SecretStr("a-token-in-haste"),)}
    )
    with serve(hasty) as url:
        late = httpx.post(f"{url}/v1/streams", json={"slug": "late"}, headers=api.headers)

    assert late.status_code == 504
    assert [each["slug"] for each in api.get("/v1/streams").json()["data"]] == ["main"]
