"""Accepting: rows change together or not at all, once per message, and every order comes to the same."""

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from foundation.database import Database, utc_now
from foundation.vault import Vault
from models import Connection, InboundEvent, Lane, State, Step, Tenant, Transition, Work
from tests.support.events import CANARY, event, stripe
from tests.support.intake import accepted, clear, message, outcome
from tests.support.rows import all_of, stored, work_of
from worker.intake.accept import STALE, Accepted, Intake
from worker.intake.events import InvalidEventError
from worker.intake.inbox import Inbox
from worker.policy import RetryPolicy
from worker.queue.claims import claim
from worker.queue.record import record
from worker.queue.turns import SPACING
from worker.queue.verdict import Claim, Problem, Verdict

Accept = Callable[..., Accepted]
LEASE = timedelta(minutes=1)
POLICY = RetryPolicy(8, timedelta(minutes=15))


def the_connection(database: Database) -> Connection:
    (row,) = all_of(database, Connection)
    assert isinstance(row, Connection)
    return row


def the_tenant(database: Database) -> Tenant:
    (row,) = all_of(database, Tenant)
    assert isinstance(row, Tenant)
    return row


def test_signup_makes_tenant_and_connections(database: Database, vault: Vault, accept: Accept) -> None:
    """A signup is stored with its wishes, its secret sealed for this connection, and its first step due."""
    body = event(
        "tenant.created",
        stripe(name="Mine", max_age_days=30),
        stripe(None, slot="later"),
        name="Choam Corp",
        metadata={"crm": 7},
    )

    accepted = accept(body)

    tenant = the_tenant(database)
    assert (tenant.external_id, tenant.name, tenant.metadata_) == ("org_1", "Choam Corp", {"crm": 7})
    assert tenant.is_announced
    first, later = sorted(all_of(database, Connection), key=lambda row: row.slot)
    assert (first.state, later.state) == (State.REQUESTED, State.AWAITING_CREDENTIAL)
    assert first.overrides == {"name": "Mine", "max_age_days": 30}
    assert first.correlation_id == "corr"
    (work,) = all_of(database, Work)
    assert (work.connection_id, work.step) == (first.id, Step.CAPTURE)
    assert work.due_at is not None
    assert work.due_at == work.turn_at
    opened = json.loads(vault.open(str(first.sealed_credential), context=str(first.id)))
    assert opened["properties"] == {"kind": "stripe_key", "secret": CANARY}
    assert accepted.due == {Step.CAPTURE}
    assert accepted.answer["state"] == "provisioning"
    assert accepted.answer["status_url"] == "/v1/tenants/org_1"


def test_external_id_is_quoted_in_the_address(accept: Accept) -> None:
    """An external id may hold anything; the address of its status is still one address."""
    answer = accept(event("tenant.created", external_id="a/b?c#d e")).answer

    assert answer["status_url"] == "/v1/tenants/a%2Fb%3Fc%23d%20e"


def test_repeated_message_gets_the_first_answer(database: Database, accept: Accept) -> None:
    """The same message again changes nothing, asks for nothing, and is answered as it was then."""
    body = event("tenant.created", stripe())
    first = accept(body, "msg_1")
    accept(event("tenant.deleted", minute=1), "msg_2")

    again = accept(body, "msg_1")

    assert (again.answer, again.due, again.is_repeated) == (first.answer, frozenset(), True)
    assert len(all_of(database, InboundEvent)) == 2
    assert the_connection(database).state is State.REMOVING


@pytest.mark.parametrize("external_id", ["org_1", "org_2"])
def test_reused_id_is_refused(database: Database, accept: Accept, external_id: str) -> None:
    """Another message under an id that was used is refused, whomever it is about, and changes nothing."""
    accept(event("tenant.created", stripe()), "msg_1")

    with pytest.raises(InvalidEventError) as caught:
        accept(event("tenant.created", name="other", external_id=external_id), "msg_1")

    assert list(caught.value.fields) == ["webhook-id"]
    assert the_tenant(database).name is None


def test_same_id_from_another_source_is_another_message(inbox: Inbox, database: Database) -> None:
    """Sources number their messages for themselves."""
    one = message(event("tenant.created"), "msg_1")
    other = message(event("tenant.created", external_id="org_2"), "msg_1", source="other")

    inbox.accept(one).result(10)
    inbox.accept(other).result(10)

    assert len(all_of(database, Tenant)) == 2


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (event("tenant.created", plan="gold"), "data.plan", "there are: default"),
        (event("tenant.created", stripe(provider="fax")), "data.connections.0.provider", "github, hubspot"),
        (event("tenant.updated", plan="gold"), "data.plan", "there are: default"),
    ],
)
def test_unknown_plan_or_provider_is_refused(
    database: Database, accept: Accept, body: dict[str, Any], field: str, reason: str
) -> None:
    """What the plans file does not know is refused with what it knows, and nothing is stored."""
    with pytest.raises(InvalidEventError) as caught:
        accept(body)

    assert reason in caught.value.fields[field][0]
    assert all_of(database, Tenant) == []
    assert all_of(database, InboundEvent) == []


# What four events about one customer come to, in whatever order they arrive.
CREATED = event("tenant.created", stripe(), name="First", metadata={"v": 1}, minute=1)
UPDATED = event("tenant.updated", stripe(None, max_age_days=30), name="Second", minute=2)
PROVIDED = event("credential.provided", stripe("sk_test_second", sync_frequency="4h"), minute=3)
DELETED = event("tenant.deleted", minute=4)
EVENTS = [CREATED, UPDATED, PROVIDED, DELETED]


@pytest.mark.parametrize("chosen", [list(c) for n in (2, 3, 4) for c in itertools.combinations(range(4), n)])
@pytest.mark.parametrize("is_together", [False, True], ids=["one by one", "in one group"])
def test_every_order_comes_to_the_same(
    database: Database, vault: Vault, intake: Intake, chosen: list[int], is_together: bool
) -> None:
    """Any of these events, in every order of arrival, leave the same rows and the same work behind."""
    outcomes = []
    for order in itertools.permutations(chosen):
        messages = [message(EVENTS[index]) for index in order]
        for group in [messages] if is_together else [[each] for each in messages]:
            accepted(database, intake, *group)
        outcomes.append((order, outcome(database, vault)))
        clear(database)

    assert [each for each in outcomes if each[1] != outcomes[0][1]] == []


def test_older_event_overwrites_nothing(database: Database, accept: Accept) -> None:
    """What a newer event has set stays, field by field; what only the older one sets is taken."""
    accept(UPDATED)
    accept(CREATED)

    tenant = the_tenant(database)
    assert (tenant.name, tenant.metadata_) == ("Second", {"v": 1})
    assert the_connection(database).overrides == {"max_age_days": 30}


def test_event_that_overtook_the_signup_waits_for_it(database: Database, accept: Accept) -> None:
    """A credential that comes before its signup is kept, sealed, and used once the signup is here."""
    accept(PROVIDED)
    assert the_connection(database).state is State.AWAITING_CREDENTIAL

    accept(CREATED)
    assert the_connection(database).state is State.REQUESTED


def test_deletion_erases_the_secret_at_once(database: Database, accept: Accept) -> None:
    """With the deletion the sealed credential goes, not only when the API has been told."""
    accept(CREATED)
    accept(DELETED)

    row = the_connection(database)
    assert (row.state, row.sealed_credential) == (State.REMOVING, None)


@pytest.mark.parametrize("state", [State.REMOVING, State.REMOVED])
def test_late_credential_of_a_deleted_customer_is_not_kept(
    database: Database, accept: Accept, state: State
) -> None:
    """A credential that was sent before the deletion, but arrives after it, is erased in the same moment."""
    accept(CREATED)
    accept(DELETED)
    become(database, state)

    accept(PROVIDED)

    row = the_connection(database)
    assert (row.state, row.sealed_credential) == (state, None)


def become(database: Database, state: State) -> None:
    with database.write() as session:
        session.exec(select(Connection)).one().state = state


def test_signing_up_again_after_the_removal(database: Database, accept: Accept) -> None:
    """Who was removed and signs up again starts from the beginning, under the same connection."""
    accept(CREATED)
    accept(DELETED)
    become(database, State.REMOVED)
    before = the_connection(database).id

    accept(event("tenant.created", stripe(), minute=5))

    row = the_connection(database)
    assert (row.id, row.state) == (before, State.REQUESTED)
    moves = [(move.from_state, move.to_state) for move in all_of(database, Transition)]
    assert (State.REMOVED, State.AWAITING_CREDENTIAL) in moves
    assert (State.AWAITING_CREDENTIAL, State.REQUESTED) in moves


def test_signing_up_again_during_the_removal(database: Database, accept: Accept) -> None:
    """Who comes back while the removal is under way keeps the new credential through it."""
    accept(CREATED)
    accept(DELETED)
    accept(event("tenant.created", stripe("sk_test_new"), minute=5))
    assert the_connection(database).state is State.REMOVING

    finish_removal(database)

    row = the_connection(database)
    assert row.state is State.REQUESTED
    assert row.sealed_credential is not None


def finish_removal(database: Database) -> None:
    finish(database, taken(database, Step.REMOVE), Verdict("removed", "gone", State.REMOVED, None))


def taken(database: Database, step: Step) -> Claim:
    """The one piece of work of this step, claimed."""
    with database.write() as session:
        batch = claim(session, step, limit=10, now=database.now(session), lease=LEASE, policy=POLICY)
    (claimed,) = batch.claims
    return claimed


def finish(database: Database, claimed: Claim, verdict: Verdict) -> None:
    with database.write() as session:
        record(session, [(claimed, verdict)], now=database.now(session))


def prepared(database: Database, step: Step, due_in: timedelta | None = None, **columns: Any) -> Connection:
    """The connection of the signup, as if workers had brought it somewhere, with its next step."""
    with database.write() as session:
        row = session.exec(select(Connection)).one()
        for name, value in columns.items():
            setattr(row, name, value)
        work = session.get_one(Work, (row.id, Lane.LIFECYCLE))
        work.step, work.attempts = step, 3
        work.due_at = work.turn_at = None if due_in is None else database.now(session) + due_in
    return row


AT_THE_API: dict[str, Any] = {"sealed_credential": None, "remote_credential_id": "c1"}
WITH_SYNC: dict[str, Any] = AT_THE_API | {"remote_sync_id": "s1"}


def test_corrected_wish_revives_what_failed(database: Database, accept: Accept) -> None:
    """A connection whose create was refused is tried again when the wish is corrected, as its advice says."""
    accept(CREATED)
    row = prepared(database, Step.CREATE, state=State.FAILED, error_code="api_rejected", **AT_THE_API)

    accept(event("tenant.updated", stripe(None, collection_ids=["stripe:customer"]), minute=2))

    row = stored(database, row)
    assert (row.state, row.error_code) == (State.REQUESTED, None)
    work = work_of(database, row)
    assert (work.step, work.attempts) == (Step.CAPTURE, 0)
    assert work.due_at is not None


def test_change_of_a_working_sync_is_due_at_once(database: Database, accept: Accept) -> None:
    """What a working connection lacks is sent by an update beside its watching; its state stays."""
    accept(CREATED)
    later = timedelta(minutes=4)
    row = prepared(database, Step.POLL, later, state=State.READY, applied_revision=2, **WITH_SYNC)
    watching = work_of(database, row)

    accepted = accept(event("tenant.updated", name="Renamed", minute=2))

    assert stored(database, row).state is State.READY
    assert accepted.due == {Step.UPDATE}
    assert work_of(database, row, Lane.CHANGES).due_at is not None
    assert work_of(database, row) == watching


def test_unchanged_update_asks_for_nothing(database: Database, accept: Accept) -> None:
    """An update that says what is known already makes nobody work."""
    accept(CREATED)
    prepared(database, Step.POLL, state=State.READY, applied_revision=99, **WITH_SYNC)

    assert accept(event("tenant.updated", name="First", minute=2)).due == frozenset()


@pytest.mark.parametrize("given", [{"credential_id": "c2"}, {}])
def test_credential_given_while_paused_is_used_on_resuming(
    database: Database, accept: Accept, given: dict[str, Any]
) -> None:
    """A paused connection stays paused with a new credential, and starts over with it when resumed."""
    accept(CREATED)
    disabled = {"overrides": {"status": "disabled"}, "applied_revision": 2}
    prepared(database, Step.POLL, state=State.PAUSED, **disabled, **WITH_SYNC)
    accept(event("credential.provided", stripe(None if given else CANARY, **given), minute=2))
    assert the_connection(database).state is State.PAUSED

    accept(event("tenant.updated", stripe(None, status="active"), minute=3))

    assert the_connection(database).state is State.REQUESTED


def test_row_at_work_is_not_announced(database: Database, accept: Accept) -> None:
    """A connection that a worker holds goes on when that worker has recorded, not before."""
    accept(CREATED)
    claimed = taken(database, Step.CAPTURE)

    assert accept(PROVIDED).due == frozenset()
    work = work_of(database, the_connection(database))
    assert (work.fence, work.is_leased(utc_now())) == (claimed.fence, True)


@pytest.mark.parametrize(
    "second", [stripe("sk_test_second"), stripe(None, credential_id="c2")], ids=["a secret", "an id"]
)
def test_credential_that_arrives_during_a_capture_is_not_lost(
    database: Database, vault: Vault, accept: Accept, second: dict[str, Any]
) -> None:
    """The capture under way keeps what it imported, and the newer credential is captured next."""
    accept(CREATED)
    claimed = taken(database, Step.CAPTURE)
    accept(event("credential.provided", second, minute=3))

    facts = {"sealed_credential": None, "remote_credential_id": "c1"}
    finish(database, claimed, Verdict("captured", "imported", State.CAPTURED, facts=facts))

    row = the_connection(database)
    assert (row.state, row.remote_credential_id) == (State.REQUESTED, "c1")
    again = taken(database, Step.CAPTURE)
    if again.sealed_credential is None:
        assert again.overrides["credential_id"] == "c2"
    else:
        opened = json.loads(vault.open(again.sealed_credential, context=str(row.id)))
        assert opened["properties"]["secret"] == "sk_test_second"


@pytest.mark.parametrize(
    "older",
    [
        event("credential.provided", stripe("sk_test_old"), minute=-10),
        event("tenant.updated", name="Old", minute=-10),
        event("tenant.created", stripe("sk_test_old"), name="Old", minute=-10),
        event("tenant.deleted", minute=-10),
    ],
    ids=lambda body: body["type"],
)
def test_older_event_is_answered_as_such(
    database: Database, vault: Vault, accept: Accept, older: dict[str, Any]
) -> None:
    """An event that brings nothing newer is stored and answered with the reason; it changes nothing."""
    assert accept(CREATED).answer["applied"] is True
    row = prepared(database, Step.CAPTURE, timedelta(minutes=4))
    before, work = outcome(database, vault), work_of(database, row)

    late = accept(older)

    assert (late.answer["applied"], late.answer["reason"], late.due) == (False, STALE, frozenset())
    assert outcome(database, vault) == before
    assert work_of(database, row) == work, "a connection that waits to be tried again goes on waiting"
    assert len(all_of(database, InboundEvent)) == 2


def test_connection_that_is_only_named_is_news(database: Database, accept: Accept) -> None:
    """An event that makes a connection has been applied, also if it says nothing else of it."""
    accept(event("tenant.created"))

    answer = accept(event("tenant.updated", {"provider": "stripe"}, minute=-1)).answer

    assert (answer["applied"], answer["reason"]) == (True, None)
    assert the_connection(database).state is State.AWAITING_CREDENTIAL


def test_answer_names_what_the_event_is_about(database: Database, accept: Accept) -> None:
    """The connections that an event names are answered, and all that it changes."""
    accept(event("tenant.created", stripe(slot="a"), stripe(slot="b"), name="First"))

    one = accept(event("tenant.updated", stripe(None, slot="a", max_age_days=1), minute=1)).answer
    unchanged = accept(event("tenant.updated", name="First", minute=2)).answer
    both = accept(event("tenant.updated", name="Second", minute=3)).answer

    slots = [sorted(each["slot"] for each in answer["connections"]) for answer in (one, unchanged, both)]  # type: ignore[index,union-attr,call-overload]  # an answer is JSON
    assert slots == [["a"], [], ["a", "b"]]
    assert [answer["state"] for answer in (one, unchanged, both)] == ["provisioning"] * 3


class TestGroup:
    """Messages that share a transaction."""

    def test_repetition_gets_the_same_answer(self, database: Database, intake: Intake) -> None:
        """A message twice in one group, and once more in a group with others, has one effect."""
        sent = message(event("tenant.created", stripe()), "msg_1")
        other = message(event("tenant.created", stripe(), external_id="org_2"), "msg_2")

        first, second = accepted(database, intake, sent, sent)
        other_outcome, third = accepted(database, intake, other, sent)

        assert isinstance(first, Accepted)
        assert first.answer["tenant"] == "org_1"
        for again in (second, third):
            assert isinstance(again, Accepted)
            assert (again.answer, again.is_repeated) == (first.answer, True)
        assert isinstance(other_outcome, Accepted)
        assert not other_outcome.is_repeated
        assert len(all_of(database, InboundEvent)) == len(all_of(database, Transition)) == 2

    def test_reused_id_is_refused(self, database: Database, intake: Intake) -> None:
        """Another event under the id of one in the same group is refused, and leaves no tenant behind."""
        one = message(event("tenant.created"), "msg_1")
        other = message(event("tenant.created", external_id="org_2"), "msg_1")

        _, refused = accepted(database, intake, one, other)

        assert isinstance(refused, InvalidEventError)
        assert [tenant.external_id for tenant in all_of(database, Tenant)] == ["org_1"]

    def test_refused_message_takes_no_other_with_it(self, database: Database, intake: Intake) -> None:
        """What is refused leaves no tenant behind; about a tenant of another message it changes nothing."""
        good = [message(event("tenant.created", stripe(), external_id=f"org_{n}")) for n in range(3)]
        ghost = message(event("tenant.created", plan="gold", external_id="org_x"))
        beside = message(event("tenant.updated", stripe(provider="fax"), external_id="org_1", name="No"))

        outcomes = accepted(database, intake, good[0], ghost, good[1], beside, good[2])

        assert [isinstance(each, Accepted) for each in outcomes] == [True, False, True, False, True]
        tenants = {tenant.external_id: tenant.name for tenant in all_of(database, Tenant)}
        assert tenants == {"org_0": None, "org_1": None, "org_2": None}
        assert len(all_of(database, InboundEvent)) == len(all_of(database, Connection)) == 3

    def test_events_of_one_customer_follow_each_other(
        self, database: Database, vault: Vault, intake: Intake
    ) -> None:
        """Signup, credential and change in one group find each other's rows."""
        signup = message(event("tenant.created", stripe(None), name="First", minute=1))
        credential = message(event("credential.provided", stripe("sk_test_1"), minute=2))
        change = message(event("tenant.updated", stripe(None, max_age_days=3), name="Second", minute=3))

        outcomes = accepted(database, intake, signup, credential, change)

        assert [each.answer["state"] for each in outcomes if isinstance(each, Accepted)] == [
            "provisioning"
        ] * 3
        found = outcome(database, vault)
        assert found["tenant"][0] == "Second"
        secret = {"kind": "stripe_key", "secret": "sk_test_1"}
        state, overrides, opened, steps = found["default"]
        assert (state, overrides, steps) == (State.REQUESTED, {"max_age_days": 3}, [Step.CAPTURE])
        assert opened["properties"] == secret

    def test_rows_of_one_tenant_take_turns(self, database: Database, intake: Intake) -> None:
        """A tenant's first row is next; its others come after it, also those of a later event."""
        accepted(
            database, intake, message(event("tenant.created", *(stripe(slot=f"s{n}") for n in range(3))))
        )
        accepted(database, intake, message(event("tenant.updated", stripe(slot="s3"), minute=1)))

        waits = sorted(row.turn_at - row.due_at for row in all_of(database, Work))
        assert waits == [n * SPACING for n in range(4)]


def test_problem_that_was_told_is_forgotten_with_a_new_start(database: Database, accept: Accept) -> None:
    """What went wrong with the credential before says nothing of the new one."""
    accept(CREATED)
    claimed = taken(database, Step.CAPTURE)
    wrong = Problem("credential_rejected", "401", "ask")
    finish(database, claimed, Verdict("failed", "refused", State.FAILED, None, problem=wrong))
    assert the_connection(database).error_code == "credential_rejected"

    accept(PROVIDED)

    row = the_connection(database)
    assert (row.state, row.error_code, row.refused_at) == (State.REQUESTED, None, None)
