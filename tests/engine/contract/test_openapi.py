"""Our own OpenAPI document: every operation is in it, with all that may be answered."""

from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

REFUSALS: Final = {"400", "401", "403", "404", "422", "500", "504"}
HOSTILE: Final = (
    *(b"[]", b'"text"', b"null", b"{", b"{} {}", b"\xff"),
    *(b'"\\ud800"', b'{"name": "\xff"}', b'{"name": "a\\u0000b"}', b'{"name": "\\ud800"}'),
    *(b'{"a": 1e999}', b'{"metadata": {"n": NaN}}', b'{"n": ' + b"9" * 10_000 + b"}"),
    *(b"[" * 100_000, b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
    b" " * (1024 * 1024 + 1),
)


@pytest.fixture
def document(browser: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = browser.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each."""
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield path, method, described


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    """Section 1.4: each operation says what it does and how it refuses."""
    for path, _, described in operations(document):
        assert described.get("description"), path
        assert not path.startswith("/v1/") or set(described["responses"]) >= REFUSALS, path


def test_every_operation_wants_a_token(document: dict[str, Any]) -> None:
    """Section 1.1: a bearer token, except where people and probes come, and for the exchange of a code."""
    open_to_all = {path for path, _, described in operations(document) if "security" not in described}

    assert document["components"]["securitySchemes"]["Token"]["scheme"] == "bearer"
    assert open_to_all == {
        *("/link/oauth2/start", "/link/oauth2/callback/{provider}", "/link/oauth2/token"),
        *("/healthz", "/readyz"),
    }


def test_it_can_be_read(browser: httpx.Client) -> None:
    """Section 1.1: the reference, for people."""
    assert browser.get("/docs").status_code == 200


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies(api: httpx.Client, document: dict[str, Any], content: bytes) -> None:
    """Section 1.4: whatever is sent to whichever operation is refused by name, never by a 500."""
    for path, method, described in operations(document):
        if "requestBody" in described:
            answer = api.request(method, path, content=content, headers={"Content-Type": "application/json"})

            assert 400 <= answer.status_code < 500, path
            assert answer.json()["summary"], path
            assert "validation_errors" not in answer.json() or answer.status_code == 422, path
