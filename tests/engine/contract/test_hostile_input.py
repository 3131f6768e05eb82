"""Contract 1.4 under fire: whatever is sent to whichever operation, the answer is a documented one."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES: Final = 12
"""Per operation and database."""
NOBODY: Final = "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8"

SCALARS: Final = (
    *(None, True, False, 0, -1, 1, 0.5, 1e308),
    *(2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30),
    *(
        "",
        " ",
        "a",
        "\x00",
        "\ud800",
        "\U0001f4a5",
        "x" * 3_000,
        "../..",
        "%00",
        "'; --",
        NOBODY,
        "2026-01-01",
    ),
    *("stripe", "stripe_key", "stripe:customer", "https://product.test/"),
)
TEXTS: Final = (*map(str, SCALARS), "{}", "[]", '{"a": [1]}', '{"a": "\\u0000"}', "nan")
RAW: Final = (b"", b"{", b"[]", b"\xff", b"null", b'"\\ud800"', b"{} {}", b"[" * 50_000, b'{"a": 1e999}')

anything = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "", "kind")), inner, max_size=2)
    ),
    max_leaves=4,
)
LAST_OF_ALL: Final = ("get", "patch", "post", "delete")


@dataclass(frozen=True)
class Operation:
    """One method of one path, as our own OpenAPI document describes it."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    properties: tuple[str, ...] = ()
    statuses: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass(frozen=True)
class Call:
    """One request, as it goes over the wire."""

    url: str
    content: bytes | None
    headers: Mapping[str, str]


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Every operation; those that delete come last, so that there is something to work on."""
    found = [
        (method, path, described)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]
    for method, path, described in sorted(found, key=lambda each: LAST_OF_ALL.index(each[0])):
        media = described.get("requestBody", {}).get("content", {}).get("application/json", {})
        yield Operation(
            method,
            path,
            {each["name"]: each["in"] for each in described.get("parameters", [])},
            tuple(properties(document, media.get("schema", {}))),
            frozenset(described["responses"]),
        )


def properties(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    for each in (schema, *schema.get("anyOf", [])):
        name = each.get("$ref", "").rpartition("/")[2]
        target = document["components"]["schemas"].get(name, each)
        if "properties" in target:
            return list(target["properties"])
    return []


def requests(operation: Operation, ids: list[str], valid: dict[str, Any]) -> st.SearchStrategy[Call]:
    """Requests that are a little or entirely wrong."""
    path_values = st.sampled_from([*ids, NOBODY, *TEXTS])
    names = [name for name, where in operation.parameters.items() if where == "query"]
    query = st.dictionaries(st.sampled_from(names), st.sampled_from(TEXTS)) if names else st.just({})
    changed = (
        st.dictionaries(st.sampled_from(operation.properties), anything, max_size=3).map(
            lambda each: valid | each
        )
        if operation.properties
        else st.just(valid)
    )
    body = (changed | anything).map(lambda value: json.dumps(value).encode()) | st.sampled_from(RAW)

    @st.composite
    def build(draw: st.DrawFn) -> Call:
        path = operation.path
        for name, where in operation.parameters.items():
            if where == "path":
                path = path.replace(f"{{{name}}}", encoded(draw(path_values)) or "-")
        asked = "&".join(f"{name}={encoded(value)}" for name, value in draw(query).items())
        content = draw(body) if operation.method in {"post", "patch"} else None
        headers = {"Content-Type": "application/json"}
        if "Idempotency-Key" in operation.parameters:
            headers |= draw(st.sampled_from(({}, {"Idempotency-Key": "k"}, {"Idempotency-Key": "x" * 300})))
        return Call(f"{path}?{asked}", content, headers)

    return build()


def encoded(text: str) -> str:
    return quote(text.encode(errors="surrogatepass"), safe="")


def check(operation: Operation, answer: httpx.Response) -> None:
    """Never a 5xx, never an undocumented status, never a refusal without a reason."""
    told = f"{operation}: {answer.status_code} {answer.text[:300]}"
    assert answer.status_code < 500, told
    assert str(answer.status_code) in operation.statuses, told
    if answer.status_code >= 400 and not answer.headers["Content-Type"].startswith("text/html"):
        refusal = answer.json()
        assert refusal["summary"], told
        assert set(refusal) <= {"summary", "validation_errors"}, told
        assert "validation_errors" not in refusal or answer.status_code == 422, told


@pytest.fixture
def valid(sync_body: dict[str, Any], stream: str) -> dict[str, dict[str, Any]]:
    """A good body for each path that takes one."""
    app = {"provider": "stripe", "client_id": "c", "client_secret": "s", "name": "n"}
    return {
        "/v1/syncs": sync_body,
        "/v1/credentials": sync_body["credential"],
        "/v1/streams": {"slug": "s"},
        "/v1/http-consumers": {"stream_id": stream},
        "/v1/oauth-apps": app,
    }


@pytest.fixture
def ids(api: httpx.Client, valid: dict[str, dict[str, Any]]) -> list[str]:
    """Ids of one object of each kind."""
    made = [api.post(path, json=body).json() for path, body in valid.items()]
    return [each["id"] for each in made]


@pytest.mark.timeout(60)
def test_every_operation_withstands_anything(
    api: httpx.Client, ids: list[str], valid: dict[str, dict[str, Any]]
) -> None:
    """Section 1.4: documented status codes only, and `summary` in every refusal."""
    document = api.get("/openapi.json").json()
    for operation in operations(document):
        attack(api, operation, requests(operation, ids, valid.get(operation.path, {})))


def attack(api: httpx.Client, operation: Operation, calls: st.SearchStrategy[Call]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(calls)
    def one(call: Call) -> None:
        check(operation, api.request(operation.method, call.url, content=call.content, headers=call.headers))

    one()


def test_every_operation_is_described(api: httpx.Client) -> None:
    """Section 1.4: each operation says what it does and how it refuses."""
    document = api.get("/openapi.json").json()

    for path, methods in document["paths"].items():
        for described in methods.values():
            assert described.get("description"), path
            if path.startswith("/v1/"):
                assert {"400", "401", "403", "404", "422", "500", "504"} <= set(described["responses"]), path
