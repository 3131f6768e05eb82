"""A credential of another provider is refused where its kind says so, and only there."""

import pytest

from foundation.database import utc_now
from tests.support.events import encoded, event
from worker.intake.events import UnknownEvent, parse
from worker.intake.kinds import foreign_kinds

KNOWN = frozenset({"stripe", "hubspot", "google", "google_ads"})


@pytest.mark.parametrize(
    ("provider", "kind", "is_refused"),
    [
        ("hubspot", "stripe_key", True),
        ("hubspot", "stripe", True),
        ("stripe", "stripe_key", False),
        ("stripe", "api_key", False),
        ("stripe", "striped_key", False),
        ("hubspot", "salesforce_oauth2", False),
        ("google_ads", "google_oauth2", False),
    ],
)
def test_kind_tells_its_provider(provider: str, kind: str, is_refused: bool) -> None:
    """Only a kind that begins with the name of another known provider is refused, naming both."""
    wish = {"provider": provider, "credential": {"properties": {"kind": kind, "secret": "s"}}}
    read = parse(encoded(event("tenant.created", wish) | {"timestamp": utc_now().isoformat()}))
    assert not isinstance(read, UnknownEvent)

    found = foreign_kinds(read, KNOWN)

    assert bool(found) is is_refused
    if is_refused:
        (reason,) = found["data.connections.0.credential.properties"]
        assert "stripe" in reason
        assert "hubspot" in reason
