"""Accepting: rows change together or not at all, once per message, and every order comes to the same."""

import hashlib
import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from sqlmodel import Session, select

from foundation.database import Database, utc_now
from foundation.vault import Vault, generate_key
from models import Connection, InboundEvent, State, Step, Tenant, Transition
from tests.support.events import AT, CANARY, encoded, event, stripe
from tests.support.rows import all_of, stored
from worker.intake.accept import Accepted, Intake, Message
from worker.intake.events import InvalidEventError, parse
from worker.intake.inbox import Inbox
from worker.plans import Plans
from worker.rows.claims import claim
from worker.rows.record import record
from worker.steps.verdict import RetryPolicy, Verdict

Accept = Callable[..., Accepted]


@pytest.fixture(autouse=True)
def frozen() -> Any:
    with time_machine.travel(AT + timedelta(hours=1), tick=True) as traveller:
        yield traveller


@pytest.fixture
def vault() -> Vault:
    return Vault.from_text(generate_key())


@pytest.fixture
def inbox(database: Database, vault: Vault) -> Any:
    inbox = Inbox(database, Intake(vault, Plans.load()))
    yield inbox
    inbox.close()


@pytest.fixture
def accept(inbox: Inbox) -> Accept:
    return lambda body, message_id=None: inbox.accept(message(body, message_id)).result(timeout=30)


def message(body: dict[str, Any], message_id: str | None = None) -> Message:
    raw = encoded(body)
    digest = hashlib.sha256(raw).hexdigest()
    return Message("app", message_id or uuid4().hex, digest, parse(raw), correlation_id="corr")


def the_connection(database: Database) -> Connection:
    (row,) = all_of(database, Connection)
    assert isinstance(row, Connection)
    return row


def the_tenant(database: Database) -> Tenant:
    (row,) = all_of(database, Tenant)
    assert isinstance(row, Tenant)
    return row


def test_signup_makes_tenant_and_connections(database: Database, vault: Vault, accept: Accept) -> None:
    """A signup is stored with its wishes, its secret sealed for this tenant, and its first step due."""
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
    assert (first.correlation_id, later.due_at) == ("corr", None)
    opened = json.loads(vault.open(str(first.sealed_credential), context=str(tenant.id)))
    assert opened["properties"] == {"kind": "stripe_key", "secret": CANARY}
    assert accepted.due == [(Step.CAPTURE, first.id)]
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

    assert (again.answer, again.due, again.is_repeated) == (first.answer, [], True)
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
    other = Message("other", one.id, "0", parse(encoded(event("tenant.created", external_id="org_2"))))

    inbox.accept(one).result(10)
    inbox.accept(other).result(10)

    assert len(all_of(database, Tenant)) == 2


@pytest.mark.parametrize("copies", [2, 20])
def test_deliveries_at_once_have_one_effect(database: Database, vault: Vault, copies: int) -> None:
    """One message delivered many times at once, to several web processes: one effect, the same answer."""
    inboxes = [Inbox(Database(database.url), Intake(vault, Plans.load())) for _ in range(2)]
    sent = message(event("tenant.created", stripe()), "msg_1")

    with ThreadPoolExecutor(copies) as threads:
        answers = [
            accepted.answer
            for accepted in threads.map(
                lambda index: inboxes[index % 2].accept(sent).result(30), range(copies)
            )
        ]

    assert [answer for answer in answers if answer != answers[0]] == []
    assert len(all_of(database, InboundEvent)) == 1
    assert len(all_of(database, Transition)) == 1
    for inbox in inboxes:
        inbox.close()
        inbox._database.dispose()


def test_signups_at_once_share_a_tenant(database: Database, vault: Vault) -> None:
    """Different messages about one new customer at once make one tenant with everything in it."""
    inboxes = [Inbox(Database(database.url), Intake(vault, Plans.load())) for _ in range(2)]
    sent = [message(event("tenant.created", stripe(slot=f"s{n}"), minute=n)) for n in range(10)]

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda n: inboxes[n % 2].accept(sent[n]).result(30), range(10)))

    assert the_tenant(database).external_id == "org_1"
    assert len(all_of(database, Connection)) == 10
    for inbox in inboxes:
        inbox.close()
        inbox._database.dispose()


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


def test_refused_message_takes_no_other_with_it(database: Database, inbox: Inbox) -> None:
    """Messages that share a commit stand and fall alone, also by a mistake of ours."""
    good = [message(event("tenant.created", stripe(), external_id=f"org_{n}")) for n in range(5)]
    refused = message(event("tenant.created", plan="gold", external_id="org_x"))
    broken = Message("app", "broken", "0", good[0].event, correlation_id={})  # type: ignore[arg-type]

    answers = [inbox.accept(each) for each in (*good[:2], refused, broken, *good[2:])]

    outcomes = [answer.exception(timeout=30) for answer in answers]
    assert [outcome is None for outcome in outcomes] == [True, True, False, False, True, True, True]
    assert isinstance(outcomes[2], InvalidEventError)
    assert inbox.accept(message(event("tenant.created", external_id="after"))).result(30)


def test_mistake_does_not_silence_the_inbox(
    inbox: Inbox, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw is that message's answer; the next message is stored as ever."""
    accept_one = Intake.accept

    def sometimes_broken(intake: Intake, session: Session, sent: Message) -> Accepted:
        if sent.id == "broken":
            raise OverflowError
        return accept_one(intake, session, sent)

    monkeypatch.setattr(Intake, "accept", sometimes_broken)

    with pytest.raises(OverflowError):
        accept(event("tenant.created"), "broken")

    assert accept(event("tenant.created"), "fine").answer["tenant"] == "org_1"


def test_answer_that_nobody_awaits_does_not_silence_the_inbox(inbox: Inbox, accept: Accept) -> None:
    """A request that was cancelled while its message waited costs the others nothing."""
    inbox.accept(message(event("tenant.created", external_id="org_9"))).cancel()

    assert accept(event("tenant.created")).answer["tenant"] == "org_1"


# What four events about one customer come to, in whatever order they arrive.
CREATED = event("tenant.created", stripe(), name="First", metadata={"v": 1}, minute=1)
UPDATED = event("tenant.updated", stripe(None, max_age_days=30), name="Second", minute=2)
PROVIDED = event("credential.provided", stripe("sk_test_second", sync_frequency="4h"), minute=3)
DELETED = event("tenant.deleted", minute=4)
EVENTS = [CREATED, UPDATED, PROVIDED, DELETED]
SEQUENCES = [list(p) for size in (2, 3, 4) for p in itertools.permutations(range(4), size)]


def outcome(database: Database, vault: Vault) -> dict[str, Any]:
    """What counts of the rows."""
    tenant = the_tenant(database)
    found: dict[str, Any] = {
        "tenant": (tenant.name, tenant.plan, tenant.metadata_, tenant.is_removed, tenant.is_announced),
    }
    for row in all_of(database, Connection):
        sealed = row.sealed_credential
        opened = json.loads(vault.open(sealed, context=str(tenant.id))) if sealed else None
        found[row.slot] = (row.state, row.overrides, opened, row.due_at is not None)
    return found


@pytest.mark.parametrize("chosen", [list(c) for n in (2, 3, 4) for c in itertools.combinations(range(4), n)])
def test_every_order_comes_to_the_same(database: Database, vault: Vault, chosen: list[int]) -> None:
    """Any of these events, in every order of arrival, leave the same rows behind."""
    intake = Intake(vault, Plans.load())
    outcomes = []
    for order in itertools.permutations(chosen):
        with database.write() as session:
            for index in order:
                intake.accept(session, message(EVENTS[index]))
                session.flush()
        outcomes.append((order, outcome(database, vault)))
        clear(database)

    assert [each for each in outcomes if each[1] != outcomes[0][1]] == []


def clear(database: Database) -> None:
    with database.write() as session:
        for kind in (Transition, InboundEvent, Connection, Tenant):
            for row in session.exec(select(kind)):
                session.delete(row)
            session.flush()


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
    now, policy = utc_now(), RetryPolicy(3, timedelta(minutes=1))
    ids = [row.id for row in all_of(database, Connection)]
    with database.write() as session:
        claims = claim(session, ids, Step.REMOVE, now=now, lease=timedelta(minutes=1), policy=policy)
    with database.write() as session:
        record(session, Step.REMOVE, [(c, Verdict("removed", State.REMOVED, None)) for c in claims], now=now)


def prepared(database: Database, **columns: Any) -> Connection:
    """The connection of the signup, as if workers had brought it somewhere."""
    with database.write() as session:
        row = session.exec(select(Connection)).one()
        for name, value in columns.items():
            setattr(row, name, value)
    return row


AT_THE_API: dict[str, Any] = {"sealed_credential": None, "remote_credential_id": "c1", "due_at": None}


def test_corrected_wish_revives_what_failed(database: Database, accept: Accept) -> None:
    """A connection whose create was refused is tried again when the wish is corrected, as its advice says."""
    accept(CREATED)
    row = prepared(database, state=State.FAILED, error_code="api_rejected", **AT_THE_API)

    accept(event("tenant.updated", stripe(None, collection_ids=["stripe:customer"]), minute=2))

    row = stored(database, row)
    assert (row.state, row.error_code) == (State.REQUESTED, None)
    assert row.due_at is not None


def test_change_of_a_working_sync_is_due_at_once(database: Database, accept: Accept) -> None:
    """What a working connection lacks is sent by an update; its state stays."""
    accept(CREATED)
    prepared(database, state=State.READY, applied_revision=2, remote_sync_id="s1", **AT_THE_API)

    accepted = accept(event("tenant.updated", name="Renamed", minute=2))

    row = the_connection(database)
    assert row.state is State.READY
    assert accepted.due == [(Step.UPDATE, row.id)]


def test_unchanged_update_asks_for_nothing(database: Database, accept: Accept) -> None:
    """An update that says what is known already makes nobody work."""
    accept(CREATED)
    prepared(database, state=State.READY, applied_revision=99, remote_sync_id="s1", **AT_THE_API)

    assert accept(event("tenant.updated", name="First", minute=2)).due == []


@pytest.mark.parametrize("given", [{"credential_id": "c2"}, {}])
def test_credential_given_while_paused_is_used_on_resuming(
    database: Database, accept: Accept, given: dict[str, Any]
) -> None:
    """A paused connection stays paused with a new credential, and starts over with it when resumed."""
    accept(CREATED)
    prepared(database, state=State.PAUSED, overrides={"status": "disabled"}, applied_revision=2, **AT_THE_API)
    accept(event("credential.provided", stripe(None if given else CANARY, **given), minute=2))
    assert the_connection(database).state is State.PAUSED

    accept(event("tenant.updated", stripe(None, status="active"), minute=3))

    assert the_connection(database).state is State.REQUESTED


def test_row_at_work_is_not_announced(database: Database, accept: Accept) -> None:
    """A connection that a worker holds goes on when that worker has recorded, not before."""
    accept(CREATED)
    prepared(database, leased_until=utc_now() + timedelta(minutes=1))

    assert accept(PROVIDED).due == []


def test_intake_and_record_do_not_lock_each_other_out(database: Database, inbox: Inbox) -> None:
    """Events about a customer whose steps are being recorded at the same moment all come through."""
    inbox.accept(
        message(event("tenant.created", *(stripe(slot=f"s{n}") for n in range(6)), minute=0))
    ).result(30)
    ids = [row.id for row in all_of(database, Connection)]
    policy = RetryPolicy(1_000_000, timedelta(0))

    def work(_: int) -> None:
        for _round in range(15):
            with database.write() as session:
                claims = claim(
                    session, ids, Step.CAPTURE, now=utc_now(), lease=timedelta(minutes=1), policy=policy
                )
            results = [(each, Verdict("again", is_eventful=True)) for each in claims]
            with database.write() as session:
                record(session, Step.CAPTURE, results, now=utc_now())

    with ThreadPoolExecutor(3) as threads:
        workers = [threads.submit(work, n) for n in range(2)]
        answers = [
            inbox.accept(message(event("tenant.updated", name=f"N{n}", minute=n / 60))) for n in range(40)
        ]
        assert all(answer.result(60).answer for answer in answers)
        for worker in workers:
            worker.result(60)
