"""Which providers, kinds of credential and default rate limits there are (sections 3, 5 and 6.1)."""

from typing import Any, Final

import httpx
import pytest

from engine.providers.catalogue import load_catalogue

MASK: Final = "***********"
SECRET: Final = "kept-under-seal"
DOCUMENTED: Final = {
    "airtable_oauth2": {"airtable_uid": "usr1", "refresh_token": SECRET, "scope": "data.records:read"},
    "github_app": {"account_login": "choam", "account_type": "Organization", "installation_id": 42},
    "hubspot_oauth2": {
        "hub_domain": "choam.example",
        "hub_id": 7,
        "refresh_token": SECRET,
        "scopes": ["crm.objects.contacts.read"],
        "hubspot_user": "leto@choam.example",
        "hubspot_user_id": 8,
    },
    "linear_oauth2": {
        "access_token": SECRET,
        "scope": "read",
        "linear_org_id": "o1",
        "linear_org_name": "Choam",
    },
    "salesforce_oauth2": {
        "instance_url": "https://choam.my.salesforce.com",
        "refresh_token": SECRET,
        "name": "Choam",
    },
    "stripe_key": {"name": "Choam", "secret": SECRET, "test": True},
    "stripe_oauth2": {"access_token": SECRET},
}
SECRETS: Final = {"refresh_token", "access_token", "secret", "password"}


def imported(api: httpx.Client, **properties: Any) -> httpx.Response:
    return api.post("/v1/credentials", json={"properties": properties})


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_documented_kinds(api: httpx.Client, kind: str) -> None:
    """Sections 3.1, 3.2 and 14, rows 4, 7 and 9: given back as they were sent, with secrets masked."""
    properties = DOCUMENTED[kind]

    answer = imported(api, kind=kind, **properties)

    assert answer.status_code == 200, answer.text
    credential = answer.json()
    masked = {name: MASK if name in SECRETS else value for name, value in properties.items()}
    assert credential["properties"] == {"kind": kind, **masked}
    assert (credential["kind"], credential["provider"]) == (kind, kind.partition("_")[0])
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("airtable_oauth2", "refresh_token"), ("airtable_oauth2", "scope"), ("stripe_key", "secret")],
)
def test_required_properties(api: httpx.Client, kind: str, missing: str) -> None:
    """Section 3.2: what is required, and what nothing can be read without."""
    properties = {name: value for name, value in DOCUMENTED[kind].items() if name != missing}

    answer = imported(api, kind=kind, **properties)

    assert (answer.status_code, answer.json()["validation_errors"]) == (
        422,
        {"properties": {missing: ["is required"]}},
    )


@pytest.mark.parametrize("kind", ["stripe", "hubspot", "stripe_oauth", "stripe_sequin", "workday_oauth2", 5])
def test_other_kinds(api: httpx.Client, kind: Any) -> None:
    """Section 14, rows 8 and 21: a kind is provider and mechanism; the refusal says which there are."""
    answer = imported(api, kind=kind, secret=SECRET)

    assert answer.status_code == 422
    [reason] = answer.json()["validation_errors"]["properties"]["kind"]
    assert set(DOCUMENTED) <= set(reason.rpartition(": ")[2].split(", "))


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("github_app", [{"installation_id": 42}, {"installation_id": "42", "account_type": "organization"}]),
        ("hubspot_oauth2", [{"hub_id": 7}, {"hub_id": "7", "refresh_token": "renewed"}]),
        ("airtable_oauth2", [{}, {"refresh_token": "renewed"}]),
        ("salesforce_oauth2", [{}, {"refresh_token": "renewed"}]),
    ],
)
def test_one_credential_per_account(api: httpx.Client, kind: str, spellings: list[dict[str, Any]]) -> None:
    """Sections 6.1 and 14, row 10: the properties that name the upstream account, in either spelling."""
    answers = [imported(api, kind=kind, **(DOCUMENTED[kind] | each)) for each in spellings]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("provider", "requests", "seconds"),
    [("stripe", 50, 1), ("airtable", 3, 1), ("salesforce", 28_800, 86_400)],
)
def test_default_rate_limits(provider: str, requests: int, seconds: int) -> None:
    """Section 5.2: as documented, in whichever unit; zero means no cap on requests at once."""
    limit = load_catalogue({})[provider].rate_limit

    assert limit.allowed_requests / limit.interval == requests / seconds
    assert limit.max_concurrent_requests == 0
