"""The demo's own decisions: who signs up, and whether it went as it should."""

import json
from datetime import UTC, datetime

import pytest

from worker.demo.progress import TenantStatus, shortcomings
from worker.demo.reader import STREAM
from worker.demo.run import PLANS
from worker.demo.signups import NAMES, WITH_WRONG_KEY, make_signups
from worker.intake.events import parse
from worker.plans import Plans

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def tenant(external_id: str, state: str) -> TenantStatus:
    return TenantStatus(
        external_id=external_id, name=None, state=state, created_at=NOW, ready_at=None, connections=[]
    )


def test_everyone_brings_a_key_of_their_own() -> None:
    """25 customers, 25 different keys, of which one does not look like a key."""
    signups = make_signups()

    assert len({signup.key for signup in signups}) == len(NAMES) == 25
    assert [s.external_id for s in signups if not s.key.startswith("sk_test_")] == [WITH_WRONG_KEY]
    assert make_signups()[0].key != signups[0].key


def test_the_intake_accepts_every_signup() -> None:
    """The events follow the intake's own rules."""
    for signup in make_signups():
        event = parse(signup.event(NOW))

        assert event.data.external_id == signup.external_id


def test_a_key_is_not_shown() -> None:
    """Neither a signup's text nor its log line has the key."""
    signup = make_signups()[0]

    assert signup.key not in repr(signup)
    assert json.loads(signup.event(NOW))["data"]["external_id"] == "org_01"


def test_the_plan_can_be_loaded() -> None:
    """The demo's plans file follows the worker's rules."""
    assert Plans.load(PLANS).provider("default", "stripe").stream == STREAM


@pytest.mark.parametrize(
    ("states", "records", "wrong"),
    [
        ({"a": "ready", "b": "failed"}, {"a": 3}, []),
        ({"a": "ready"}, {"a": 3}, ["1 tenants are known, expected 2"]),
        ({"a": "provisioning", "b": "failed"}, {}, ["a is provisioning, expected ready"]),
        ({"a": "ready", "b": "ready"}, {"a": 3}, ["b is ready, expected failed"]),
        ({"a": "ready", "b": "failed"}, {}, ["a is ready, but no record of it could be read"]),
    ],
)
def test_the_verdict_names_what_is_wrong(
    states: dict[str, str], records: dict[str, int], wrong: list[str]
) -> None:
    """Everyone ready and read, the one with the wrong key failed: anything else is said."""
    tenants = [tenant(external_id, state) for external_id, state in states.items()]

    assert shortcomings(tenants, records, expected=2, doomed="b") == wrong
