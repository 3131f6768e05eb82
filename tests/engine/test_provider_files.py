"""Every provider's file is complete: a new one is held to this without a line being added here."""

import json
import re
import string
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError

from engine.providers.auth import Exchanged, Installation
from engine.providers.catalogue import FILES, Provider, load_catalogue, read_provider
from engine.providers.changes import EventFeed
from engine.providers.urls import placeholders, resolve
from engine.providers.walk import request
from engine.settings import ProviderOverrides

PATHS = sorted(FILES.glob("*.yaml"))
WORD = frozenset(string.ascii_lowercase + string.digits + "_.")
TELLING = ("token", "secret", "password", "key")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    value: Path = request.param
    return value


@pytest.fixture
def provider(path: Path) -> Provider:
    return read_provider(path)


def test_nothing_is_left_to_fill_in(provider: Provider) -> None:
    """No placeholder reaches the provider, whichever list is asked for."""
    now = datetime.now(UTC)
    for collection in provider.collections.values():
        lists = [collection]
        if collection.changes is not None:
            lists.append(collection.narrowed(collection.changes, now))
            lists += [collection.swept(collection.changes.gone, now)] if collection.changes.gone else []
        for each in lists:
            sent = [*each.params_at(None).values(), json.dumps(each.body_at(None))]
            assert not any(placeholders(str(value)) for value in sent), sent


def test_names(path: Path, provider: Provider) -> None:
    """The file, its kinds and its collections are named as the contract names them (3.2, 8.3)."""
    assert provider.name == path.stem
    assert all(kind.startswith(f"{provider.name}_") for kind in provider.credential_kinds)
    assert provider.collections
    assert all(set(name) <= WORD for name in provider.collections)


def test_says_whose_documentation_it_follows(path: Path) -> None:
    first = path.read_text().splitlines()[0]

    assert first.startswith("# ")
    assert "https://" in first


def test_secrets_are_secret(provider: Provider) -> None:
    """What sounds like a secret is one, and so is all that a token is made of."""
    for kind in provider.credential_kinds.values():
        for name, field in kind.fields.items():
            assert field.secret or not any(each in name for each in TELLING), name
        if not isinstance(kind.grant, Installation):
            assert any(kind.fields[name].secret for names in kind.grant.needs for name in names)


def test_accounts_are_not_named_by_secrets(provider: Provider) -> None:
    for kind in provider.credential_kinds.values():
        assert not any(kind.fields[name].secret for name in kind.account)


def test_addresses(provider: Provider) -> None:
    """Requests go to the provider over https, wherever a credential would like them to go."""
    assert provider.base_url.startswith("https://") or placeholders(provider.base_url)
    for host in provider.hosts:
        assert host.count(".") >= 2 or not host.startswith("*")
        assert httpx.URL(f"https://{host.removeprefix('*.')}").host
    for collection in provider.collections.values():
        assert collection.path.startswith("/")
    for kind in provider.credential_kinds.values():
        if isinstance(kind.grant, Exchanged):
            assert kind.grant.token_url.startswith(("https://", "/"))


def test_capture_ends_in_a_kind(provider: Provider) -> None:
    """What the connect flow captures is a credential of the file's own, complete."""
    if provider.connect is None:
        return
    kind = provider.credential_kinds[provider.connect.kind]
    assert set(provider.connect.properties) <= set(kind.fields)
    assert any(name in provider.connect.properties for names in kind.grant.needs for name in names)


def test_default_rate_limit_is_a_share(provider: Provider) -> None:
    assert provider.rate_limit.allowed_requests / provider.rate_limit.interval <= 100


def test_kinds_are_unique() -> None:
    """A kind tells its provider."""
    named = [kind for path in PATHS for kind in read_provider(path).credential_kinds]

    assert len(named) == len(set(named)) == len(load_catalogue({}).kinds)


def test_override_wins(provider: Provider) -> None:
    """The operator's base URL is where everything goes, tokens included, whatever a credential says."""
    override = ProviderOverrides(base_url="http://127.0.0.1:1/")
    moved = load_catalogue({provider.name: override})[provider.name]

    assert resolve(moved.base_url, moved.hosts, {}) == "http://127.0.0.1:1"
    for kind in moved.credential_kinds.values():
        if isinstance(kind.grant, Exchanged):
            assert kind.grant.token_url.startswith("/")


FEED = {"kind": "event_feed", "path": "/e", "retention_days": 9, "list": "data", "id": "id"} | {
    name: name for name in ("created", "type", "object", "collection")
}
BELOW = {"path": "/s/{id}/d", "parent": {"collection": "spice"}}
MINIMAL = """
name: choam
title: CHOAM
base_url: https://api.choam.example
credential_kinds:
  choam_key:
    grant: {kind: static, fields: [secret]}
    fields: {secret: {type: string, secret: true}}
rate_limit: {allowed_requests: 1}
paging: {kind: single}
record: {list: data}
collections:
  spice: {path: /spice}
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"surprise": 1}, "Extra inputs"),
        ({"base_url": "https://{shop}.choam.example"}, "needs hosts"),
        ({"base_url": "https://{shop}.choam.example", "hosts": ["*.choam.example"]}, "required fields"),
        ({"collections": {"spice": {"path": "/{id}"}}}, "placeholders exactly when"),
        (
            {"collections": {"spice": {"path": "/{id}", "parent": {"collection": "x"}}}},
            "must be a collection",
        ),
        ({"collections": {"spice": {"path": "/s", "paging": {"kind": "guess"}}}}, "does not match any"),
        ({"changes": FEED, "collections": {"spice": {"path": "/s"}, "dune": BELOW}}, "changes of its own"),
        ({"auth": {"value": "Bearer"}}, "should match pattern"),
        (
            {"credential_kinds": {"choam_key": {"grant": {"kind": "static", "fields": ["a"]}, "fields": {}}}},
            "a",
        ),
    ],
)
def test_mistakes_are_refused(change: dict[str, object], complaint: str) -> None:
    """A file that does not hold together stops the engine at its start."""
    with pytest.raises(ValidationError, match=complaint):
        Provider.model_validate(yaml.safe_load(MINIMAL) | change)


def test_what_events_do_not_tell() -> None:
    """A collection without changes of any kind is not watched by the provider's events either."""
    stripe = read_provider(FILES / "stripe.yaml")

    assert isinstance(stripe.changes_of("stripe:customer"), EventFeed)
    assert stripe.changes_of("stripe:payment_method") is None


def test_objects_of_an_account_s_own() -> None:
    """A name that fits is a collection; what else an id may hold never gets into a query."""
    salesforce = read_provider(FILES / "salesforce.yaml")

    asked = request(salesforce, "salesforce:spice_harvest__c", None)

    assert str(asked.params["q"]).startswith("SELECT FIELDS(ALL) FROM spice_harvest__c WHERE Id > '0000")
    for name in ("spice", "spice__c WHERE", "spice__c\n", "Spice__c", "__c"):
        assert salesforce.collection(f"salesforce:{name}") is None


def test_a_small_file_is_enough() -> None:
    assert Provider.model_validate(yaml.safe_load(MINIMAL)).collection("choam:spice") is not None


def test_the_documentation_s_example_works() -> None:
    """The worked example in `docs/providers.md` is a file as it should be."""
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]

    provider = Provider.model_validate(yaml.safe_load(example))

    assert provider.root({"house": "harkonnen"}) == "https://harkonnen.choam.example"
    assert request(provider, "choam:harvest", None).path == "/api/2/harvesters"


def test_the_official_client_knows_every_list_of_stripe() -> None:
    """Each path stands in the client that Stripe itself publishes; only the ids' names differ."""
    [package] = find_spec("stripe").submodule_search_locations  # type: ignore[union-attr]
    services = [file.read_text(encoding="utf-8") for file in Path(package).rglob("*_service.py")]
    known = {
        re.sub(r"{\w+}", "{id}", path) for text in services for path in re.findall(r'"(/v1/[^"]+)"', text)
    }

    assert {each.path for each in load_catalogue({})["stripe"].collections.values()} <= known
