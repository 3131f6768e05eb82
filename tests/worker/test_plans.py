"""Plans: the default one works, and every mistake in a file is named with file and field."""

from pathlib import Path
from typing import Any

import pytest

from worker.errors import PlanError
from worker.plans import DEFAULT_FILE, Plans, PlansError, RateLimit, wanted_sync

GOOD = """
[plans.gold.providers.stripe]
stream = "gold"
collection_ids = ["stripe:customer"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "plans.toml"


def loaded(file: Path, text: str) -> Plans:
    file.write_text(text)
    return Plans.load(file)


def test_default_plan_is_valid() -> None:
    """Without a file of one's own every tenant gets the default plan, for several providers."""
    plans = Plans.load()

    assert set(plans.plans["default"].providers) >= {"stripe", "hubspot", "salesforce", "github"}
    assert DEFAULT_FILE.exists()


def test_own_file_is_read(file: Path) -> None:
    """A file replaces the default one."""
    assert set(loaded(file, GOOD).plans) == {"gold"}


ONE = "[plans.p.providers.stripe]\n"
COLLECTIONS = 'collection_ids = ["stripe:customer"]\n'
STREAM = 'stream = "s"\n'
WRONG = {
    "no TOML": ("plans = [", "not TOML"),
    "empty": ("", "plans"),
    "no plan": ("[plans]", "plans"),
    "plan without providers": ("[plans.p]\nproviders = {}", "plans.p.providers"),
    "no collections": (ONE + STREAM, "collection_ids: expected at least one"),
    "empty collections": (ONE + STREAM + "collection_ids = []", "collection_ids: expected at least one"),
    "collections as text": (ONE + STREAM + 'collection_ids = "x"', "plans.p.providers.stripe.collection_ids"),
    "no stream": (ONE + COLLECTIONS, "exactly one of stream and stream_id"),
    "two streams": (ONE + COLLECTIONS + STREAM + 'stream_id = "x"', "exactly one of stream and stream_id"),
    "odd stream": (ONE + COLLECTIONS + 'stream = "A B"', "plans.p.providers.stripe.stream"),
    "misspelt field": (ONE + COLLECTIONS + STREAM + "max_age = 3", "plans.p.providers.stripe.max_age"),
    "misspelt table": ("[plan.p.providers.stripe]\n" + STREAM, "plan"),
    "age of zero": (ONE + COLLECTIONS + STREAM + "max_age_days = 0", "max_age_days"),
    "odd frequency": (ONE + COLLECTIONS + STREAM + 'sync_frequency = "1h"', "sync_frequency"),
    "odd limit": (ONE + COLLECTIONS + STREAM + "rate_limit = {interval = 1}", "rate_limit.allowed_requests"),
    "unknown in name": (ONE + COLLECTIONS + STREAM + 'name = "{plan}"', "name: expected at most"),
    "position in name": (ONE + COLLECTIONS + STREAM + 'name = "{}"', "name: expected at most"),
    "attribute in name": (ONE + COLLECTIONS + STREAM + 'name = "{tenant.x}"', "name: expected at most"),
    "index in name": (ONE + COLLECTIONS + STREAM + 'name = "{tenant[x]}"', "name: expected at most"),
    "open brace in name": (ONE + COLLECTIONS + STREAM + 'name = "{tenant"', "name: expected at most"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_mistake_is_named_with_file_and_field(file: Path, text: str, said: str) -> None:
    """Whoever wrote the file learns where to look."""
    with pytest.raises(PlansError) as caught:
        loaded(file, text)

    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_missing_file_is_named(file: Path) -> None:
    """A path that leads nowhere is named."""
    with pytest.raises(PlansError, match="No such file"):
        Plans.load(file)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00"])
def test_binary_file_is_named(file: Path, content: bytes) -> None:
    """So is a file that is no text."""
    file.write_bytes(content)

    with pytest.raises(PlansError, match="not TOML"):
        Plans.load(file)


@pytest.mark.parametrize(
    ("plan", "provider", "said"), [("no", "stripe", "no plan 'no'"), ("default", "fax", "no provider 'fax'")]
)
def test_plan_that_is_gone_is_named(plan: str, provider: str, said: str) -> None:
    """A plan or provider that left the file after a tenant was given it is a problem with a name."""
    with pytest.raises(PlanError, match=said):
        Plans.load().provider(plan, provider)


def wanted(overrides: dict[str, Any], **who: str) -> Any:
    template = Plans.load().provider("default", "stripe").model_copy(update={"max_age_days": 90})
    return wanted_sync(template, overrides, **{"tenant": "T", "provider": "stripe", "slot": "default"} | who)


LIMIT = {"allowed_requests": 3, "interval": 60, "max_concurrent_requests": 0}


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        ({}, "max_age_days", 90),
        ({"max_age_days": 7}, "max_age_days", 7),
        ({"max_age_days": None}, "max_age_days", None),
        ({"rate_limit": LIMIT}, "rate_limit", RateLimit(**LIMIT)),
        ({"collection_ids": ["stripe:charge"]}, "collection_ids", ["stripe:charge"]),
        ({"stream_id": "x"}, "stream_id", "x"),
        ({"stream_id": "x"}, "stream", None),
        ({"status": "disabled"}, "status", "disabled"),
        ({"name": "Mine"}, "name", "Mine"),
        ({"credential_id": "not for the sync"}, "name", "T - stripe"),
    ],
)
def test_connection_overrides_its_plan(overrides: dict[str, Any], field: str, value: Any) -> None:
    """What a connection says for itself wins over the plan, also an explicit null; the rest is the plan's."""
    assert getattr(wanted(overrides), field) == value


def test_second_slot_shows_in_the_name() -> None:
    """Two connections of one tenant to one provider can be told apart."""
    assert wanted({}, slot="eu").name == "T - stripe (eu)"


@pytest.mark.parametrize("tenant", ["{slot}", "{", "%s", "{0}", "ü" * 300])
def test_customers_name_is_taken_as_it_is(tenant: str) -> None:
    """What stands in a customer's name is no template."""
    assert wanted({}, tenant=tenant).name == f"{tenant} - stripe"
