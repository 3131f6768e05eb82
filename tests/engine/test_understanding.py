"""What an import is understood as, before any database or provider is asked."""

import pytest

from engine.credentials import GivenCredential, understand
from engine.errors import InvalidError
from engine.providers.catalogue import load_catalogue
from engine.tables import JsonObject

CATALOGUE = load_catalogue({})


def understood(properties: JsonObject) -> GivenCredential:
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

    assert understood(dict(password)).secrets["password"] == "pässwort "
