"""Events of one instant: any order of arrival comes to the same rows."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from foundation.database import Database
from foundation.vault import Vault
from models import State, Step
from tests.support.events import AT, encoded, event, stripe
from tests.support.intake import accepted, clear, message, outcome
from worker.intake.accept import Intake
from worker.intake.events import UnknownEvent, parse
from worker.intake.inbox import Inbox
from worker.intake.newest import is_newer, moment_of
from worker.plans import Plans

CREATED = event("tenant.created", stripe("sk_test_first", max_age_days=1), name="Choam")
UPDATED = event("tenant.updated", stripe("sk_test_second", max_age_days=2), name="Corp", metadata={"t": 1})
RENAMED = event("tenant.updated", stripe(None, max_age_days=3), name="Other")
PROVIDED = event("credential.provided", stripe("sk_test_third"))
DELETED = event("tenant.deleted")
EARLIER = event("tenant.updated", name="Before", metadata={"t": 0}, minute=-1)

TOGETHER = {
    "created and updated": [CREATED, UPDATED],
    "created and deleted": [CREATED, DELETED],
    "created and credential": [CREATED, PROVIDED],
    "two updates": [UPDATED, RENAMED],
    "two updates and a signup": [UPDATED, RENAMED, CREATED],
    "updated and credential": [UPDATED, PROVIDED],
    "all but the deletion": [CREATED, UPDATED, PROVIDED, EARLIER],
    "all": [CREATED, UPDATED, PROVIDED, DELETED],
}


def moment(body: dict[str, Any]) -> str:
    read = parse(encoded(body))
    assert not isinstance(read, UnknownEvent)
    return moment_of(read)


def accept(inbox: Inbox, body: dict[str, Any], message_id: str) -> None:
    inbox.accept(message(body, message_id)).result(timeout=30)


@pytest.mark.parametrize("events", TOGETHER.values(), ids=TOGETHER.keys())
def test_every_order_comes_to_the_same(
    database: Database, vault: Vault, inbox: Inbox, events: list[dict[str, Any]]
) -> None:
    """Events with equal timestamps, in every order of arrival, leave the same rows behind."""
    outcomes = []
    for turn, order in enumerate(itertools.permutations(events)):
        for index, body in enumerate(order):
            accept(inbox, body, f"msg_{turn}_{index}")
        outcomes.append(outcome(database, vault))
        clear(database)

    assert [each for each in outcomes if each != outcomes[0]] == []


def test_signup_lacks_nothing_that_its_update_brought(database: Database, vault: Vault, inbox: Inbox) -> None:
    """A signup that arrives after the update of the same second takes nothing of it back."""
    accept(inbox, UPDATED, "msg_1")
    accept(inbox, CREATED, "msg_2")

    found = outcome(database, vault)
    assert found["tenant"] == ("Corp", "default", {"t": 1}, False, True)
    state, overrides, opened, steps = found["default"]
    assert (state, overrides) == (State.REQUESTED, {"max_age_days": 2})
    assert steps == [Step.CAPTURE]
    assert opened["properties"]["secret"] == "sk_test_second"


def test_deletion_of_the_same_second_wins(database: Database, vault: Vault, inbox: Inbox) -> None:
    """A signup that arrives after the deletion of the same second does not bring the tenant back."""
    accept(inbox, DELETED, "msg_1")
    accept(inbox, CREATED, "msg_2")

    assert outcome(database, vault)["tenant"][3] is True


def test_clock_of_an_earlier_release_is_understood() -> None:
    """A clock that holds instants only is older than any event of the same instant, and newer than before."""
    clock = {"name": AT.isoformat(timespec="microseconds")}

    assert is_newer(clock, "name", moment(UPDATED))
    assert not is_newer(clock, "name", moment(EARLIER))


def test_instant_counts_before_the_type() -> None:
    """A later signup is newer than an earlier deletion, in whatever time zone it is written."""
    later = event("tenant.created") | {"timestamp": "2026-05-04T14:00:00.000001+02:00"}

    assert moment(later) > moment(DELETED) > moment(UPDATED) > moment(CREATED)


LATER_UPDATE = event("tenant.updated", name="Later", metadata={"t": 9}, minute=2)
WITH_PLAN = event("tenant.updated", name="Named", plan="large")
DELETED_LATER = event("tenant.deleted", minute=1)
BACK = event("tenant.created", name="Back", minute=3)


@pytest.mark.parametrize(
    ("events", "name", "metadata"),
    [
        ([CREATED, UPDATED, DELETED_LATER], None, {}),
        ([CREATED, DELETED_LATER, LATER_UPDATE], "Later", {"t": 9}),
        ([CREATED, DELETED_LATER, LATER_UPDATE, BACK], "Back", {}),
    ],
    ids=["deleted", "updated after the deletion", "signed up again"],
)
def test_name_and_metadata_go_with_the_customer(
    database: Database,
    vault: Vault,
    inbox: Inbox,
    events: list[dict[str, Any]],
    name: str | None,
    metadata: dict[str, Any],
) -> None:
    """What was said before the deletion is erased in any order of arrival; what was said after it waits."""
    for turn, order in enumerate(itertools.permutations(events)):
        for index, body in enumerate(order):
            accept(inbox, body, f"msg_{turn}_{index}")

        found = outcome(database, vault)["tenant"]
        assert (found[0], found[2]) == (name, metadata), [body["type"] for body in order]
        clear(database)


def test_plan_of_a_deleted_customer_is_the_newest(database: Database, vault: Vault, intake: Intake) -> None:
    """The plan is nobody's name: it stays, and does so in any order of arrival."""
    plans = Plans(plans=dict.fromkeys(("default", "large"), intake.plans.plans["default"]))
    events = [CREATED, WITH_PLAN, DELETED_LATER]
    found = []
    for order in itertools.permutations(events):
        for body in order:
            accepted(database, replace(intake, plans=plans), message(body))
        found.append(outcome(database, vault))
        clear(database)

    assert [each for each in found if each != found[0]] == []
    assert found[0]["tenant"] == (None, "large", {}, True, True)
