"""Events of one instant: any order of arrival comes to the same rows."""

import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from sqlmodel import select

from foundation.database import Database
from foundation.vault import Vault, generate_key
from models import Connection, InboundEvent, State, Tenant, Transition
from tests.support.events import AT, encoded, event, stripe
from tests.support.rows import all_of
from worker.intake.accept import Intake, Message
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


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with time_machine.travel(AT + timedelta(hours=1), tick=True):
        yield


@pytest.fixture
def vault() -> Vault:
    return Vault.from_text(generate_key())


@pytest.fixture
def inbox(database: Database, vault: Vault) -> Iterator[Inbox]:
    inbox = Inbox(database, Intake(vault, Plans.load()))
    yield inbox
    inbox.close()


def moment(body: dict[str, Any]) -> str:
    read = parse(encoded(body))
    assert not isinstance(read, UnknownEvent)
    return moment_of(read)


def accept(inbox: Inbox, body: dict[str, Any], message_id: str) -> None:
    read = parse(encoded(body))
    assert not isinstance(read, UnknownEvent)
    inbox.accept(Message("app", message_id, read.digest, read)).result(timeout=30)


def outcome(database: Database, vault: Vault) -> dict[str, Any]:
    """What counts of the rows."""
    (tenant,) = all_of(database, Tenant)
    found: dict[str, Any] = {
        "tenant": (tenant.name, tenant.plan, tenant.metadata_, tenant.is_removed, tenant.is_announced)
    }
    for row in all_of(database, Connection):
        sealed = row.sealed_credential
        opened = json.loads(vault.open(sealed, context=str(tenant.id))) if sealed else None
        found[row.slot] = (row.state, row.overrides, opened)
    return found


def clear(database: Database) -> None:
    with database.write() as session:
        for kind in (Transition, InboundEvent, Connection, Tenant):
            for row in session.exec(select(kind)):
                session.delete(row)
            session.flush()


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
    state, overrides, opened = found["default"]
    assert (state, overrides) == (State.REQUESTED, {"max_age_days": 2})
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
