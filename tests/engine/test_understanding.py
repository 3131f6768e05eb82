"""What an import is understood as, before any database or provider is asked."""

from collections.abc import Mapping

import pytest
from pydantic import JsonValue

from engine.credentials import GivenCredential, understand
from engine.errors import InvalidError
from engine.providers.catalogue import load_catalogue

CATALOGUE = load_catalogue({})


def understood(properties: Mapping[str, JsonValue]) -> GivenCredential:
    return understand(CATALOGUE, properties, name=None, oauth_app_id=None, metadata=None)


@pytest.mark.parametrize(
    "secret",
    ["sk_test_\u200b4eC39", "sk_t\u00e9st", " sk_test_4eC39", "sk_test\n", "sk\ttest"],
    ids=["no width", "accent", "blank", "end of line", "tab"],
)
def test_tokens_that_no_header_carries(secret: str) -> None:
    """What was pasted along with a token is refused at once, and not repeated."""
    with pytest.raises(InvalidError) as refused:
        understood({"kind": "stripe_key", "secret": secret})

    assert refused.value.reasons == {
        "properties": {"secret": ["must be printable ASCII, without blanks around it"]}
    }


def test_secrets_that_no_header_carries_as_they_are() -> None:
    """A password may be any text, and a key has lines."""
    password = {"kind": "servicenow_password", "instance": "choam", "username": "u", "password": "pässwort "}

    assert understood(password).secrets["password"] == "pässwort "


@pytest.mark.parametrize("nothing", ["", None])
def test_what_is_empty_is_not_there(nothing: str | None) -> None:
    """Two accounts do not become one by what neither of them has."""
    first, second = (
        understood({"kind": "linear_oauth2", "access_token": token, "refresh_token": nothing})
        for token in ("lin_1", "lin_2")
    )
    stripe = understood({"kind": "stripe_oauth2", "secret": nothing, "access_token": "sk_test_1"})

    assert (first.proof, second.proof, stripe.proof) == ("lin_1", "lin_2", "sk_test_1")
    assert stripe.secrets == {"access_token": "sk_test_1"}


def test_a_token_has_to_be_there() -> None:
    """A field that is empty does for none that is required, one way or the other."""
    with pytest.raises(InvalidError) as refused:
        understood({"kind": "github_app", "installation_id": ""})
    assert refused.value.reasons == {"properties": {"installation_id": ["is required"]}}

    with pytest.raises(InvalidError) as refused:
        understood({"kind": "stripe_oauth2", "secret": "", "access_token": ""})
    assert refused.value.reasons == {"properties": {"secret": ["is required"]}}


@pytest.mark.parametrize(
    ("kind", "name", "host"),
    [
        ("shopify_key", "shop", "xn--a"),
        ("salesforce_oauth2", "instance_url", "https://xn--a.my.salesforce.com"),
        ("auth0_app", "domain", "xn--a.auth0.com"),
        ("netsuite_app", "account_id", "xn--a"),
    ],
)
def test_malformed_hosts_are_refused_by_name(kind: str, name: str, host: str) -> None:
    """A host that looks like an encoded one and cannot be decoded is a mistake of whoever sent it."""
    provider = CATALOGUE.kinds[kind]
    fields = provider.credential_kinds[kind].fields
    given = {field: "s" for field in fields if fields[field].type == "string"}

    with pytest.raises(InvalidError) as refused:
        understood({"kind": kind, **given, "access_token": "t", name: host})

    assert set(refused.value.reasons["properties"]) == {name}  # type: ignore[index]
