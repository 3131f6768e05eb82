"""What was documented and is not here: older editions and other products (sections 6.4, 9.3 and 11)."""

import httpx
import pytest


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/records"),
        ("GET", "/v1/events"),
        ("GET", "/v1/events/8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8"),
        ("POST", "/v1/mutations/run"),
        ("GET", "/v1/proxy/sync/8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8/v1/customers"),
        ("POST", "/v1/targets/postgres"),
        ("GET", "/v1/consumers/postgres"),
        ("GET", "/api/wait/8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8"),
    ],
)
def test_not_here(api: httpx.Client, method: str, path: str) -> None:
    """Sections 9.3 and 11: said in the usual shape, so that a client knows."""
    answer = api.request(method, path)

    assert (answer.status_code, answer.json()) == (404, {"summary": "Not found: no such path"})


@pytest.mark.parametrize("path", ["start-auth", "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8"])
def test_credentials_are_imported_at_one_place(api: httpx.Client, path: str) -> None:
    """Sections 6.4 and 14, row 15: the older connect flow is superseded, an import has no id in its path."""
    answer = api.post(f"/v1/credentials/{path}", json={})

    assert (answer.status_code, answer.json()) == (405, {"summary": "Method Not Allowed"})
