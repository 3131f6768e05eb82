"""The inbox: messages share commits, and none pays for another; processes race, and all are answered."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from foundation.database import Database
from models import Connection, InboundEvent, Lane, Step, Tenant, Transition, Work
from tests.support.events import event, stripe
from tests.support.intake import message
from tests.support.rows import all_of
from tests.support.serving import eventually
from worker.intake import inbox as inboxes
from worker.intake.accept import Accepted, Intake, Message, Outcome
from worker.intake.events import InvalidEventError
from worker.intake.inbox import Inbox, InboxFullError
from worker.policy import RetryPolicy
from worker.queue.claims import claim
from worker.queue.record import record
from worker.queue.verdict import Verdict

Accept = Callable[..., Accepted]
WAIT_S = 30
POLICY = RetryPolicy(1_000_000, timedelta(0))


class Held(Intake):
    """An intake whose transactions wait before and after their changes, and that tells of its groups."""

    def __init__(self, intake: Intake) -> None:
        super().__init__(intake.vault, intake.plans)
        object.__setattr__(self, "groups", [])
        object.__setattr__(self, "begun", threading.Event())
        object.__setattr__(self, "may_go_on", threading.Event())

    groups: list[list[str]]
    begun: threading.Event
    may_go_on: threading.Event

    def accept_all(self, session: Session, messages: Sequence[Message], *, now: datetime) -> list[Outcome]:
        self.groups.append([each.id for each in messages])
        self.begun.set()
        assert self.may_go_on.wait(WAIT_S)
        return super().accept_all(session, messages, now=now)


@pytest.fixture
def held(database: Database, intake: Intake) -> Iterator[tuple[Held, Inbox]]:
    """An inbox that takes what arrives while its first message is held into one group."""
    holding = Held(intake)
    inbox = Inbox(database, holding)
    yield holding, inbox
    holding.may_go_on.set()
    inbox.close()


@pytest.fixture
def two_inboxes(database: Database, intake: Intake) -> Iterator[list[Inbox]]:
    """Two web processes: each with a database of its own."""
    with ExitStack() as stack:
        opened = []
        for _ in range(2):
            own = Database(database.url)
            stack.callback(own.dispose)
            opened.append(Inbox(own, intake))
            stack.callback(opened[-1].close)
        yield opened


def in_one_group(held: tuple[Held, Inbox], *messages: Message) -> list[Any]:
    """The answer or the exception of each, all of them gathered behind one message that is held."""
    holding, inbox = held
    first = inbox.accept(message(event("tenant.created", external_id="first"), "first"))
    assert holding.begun.wait(WAIT_S)
    answers = [inbox.accept(each) for each in messages]
    holding.may_go_on.set()
    assert first.result(WAIT_S)
    return [answer.exception(WAIT_S) or answer.result() for answer in answers]


def signups(count: int) -> list[Message]:
    return [
        message(event("tenant.created", stripe(), external_id=f"org_{n}"), f"msg_{n}") for n in range(count)
    ]


def test_messages_share_a_commit(held: tuple[Held, Inbox], database: Database) -> None:
    """What arrives while a transaction runs goes into the next one together."""
    outcomes = in_one_group(held, *signups(5))

    assert held[0].groups == [["first"], [f"msg_{n}" for n in range(5)]]
    assert [each.answer["tenant"] for each in outcomes] == [f"org_{n}" for n in range(5)]
    assert len(all_of(database, Work)) == 5


def test_group_is_bounded(held: tuple[Held, Inbox], monkeypatch: pytest.MonkeyPatch) -> None:
    """A group holds so many messages and names so many connections, and the rest has another turn."""
    monkeypatch.setattr(inboxes, "MESSAGES_PER_COMMIT", 3)
    monkeypatch.setattr(inboxes, "CONNECTIONS_PER_COMMIT", 4)
    wide = event("tenant.created", *(stripe(slot=f"s{n}") for n in range(4)), external_id="wide")

    in_one_group(held, *signups(4), message(wide, "wide"), message(event("tenant.deleted"), "last"))

    assert held[0].groups[1:] == [["msg_0", "msg_1", "msg_2"], ["msg_3", "wide"], ["last"]]


def test_largest_events_fit_into_statements(held: tuple[Held, Inbox], database: Database) -> None:
    """Events that name a thousand connections each are stored, and change them again."""
    wide = [stripe(None, slot=f"s{n}") for n in range(1000)]
    bodies = [event("tenant.created", *wide), event("tenant.updated", *wide, minute=1)]

    outcomes = in_one_group(held, *map(message, bodies))

    assert [type(each) for each in outcomes] == [Accepted] * 2
    assert len(all_of(database, Connection)) == 1000


def broken_values() -> list[Message]:
    """Values that the parser would refuse, so that nobody has to believe that it finds all of them."""
    good = message(event("tenant.created", stripe(), external_id="broken"))
    half = good.event.data.model_copy(update={"name": "\ud800"})
    nul = good.event.data.model_copy(update={"name": "\x00"})
    huge = good.event.data.model_copy(update={"metadata": {"n": object()}})
    events = [good.event.model_copy(update={"data": data}) for data in (half, huge, nul)]
    return [replace(good, id=f"broken_{n}", event=each) for n, each in enumerate(events)]


def test_message_that_breaks_the_transaction_costs_no_other(
    held: tuple[Held, Inbox], database: Database
) -> None:
    """What the database or its driver refuses is that message's answer; the others are stored, each once."""
    good = signups(4)
    half, huge, _ = broken_values()
    refused = message(event("tenant.created", plan="gold", external_id="org_x"))

    outcomes = in_one_group(held, *good[:2], half, refused, huge, *good[2:])

    assert [isinstance(each, Accepted) for each in outcomes] == [True, True, False, False, False, True, True]
    assert isinstance(outcomes[3], InvalidEventError)
    tenants = {tenant.external_id for tenant in all_of(database, Tenant)}
    assert tenants == {"first", *(f"org_{n}" for n in range(4))}
    assert len(all_of(database, InboundEvent)) == 5
    assert len(all_of(database, Work)) == len(all_of(database, Transition)) == 4


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_value_that_the_database_refuses(held: tuple[Held, Inbox], database: Database) -> None:
    """PostgreSQL itself refuses NUL: only that message fails."""
    outcomes = in_one_group(held, *signups(1), broken_values()[2])

    assert [isinstance(each, Accepted) for each in outcomes] == [True, False]
    assert {tenant.external_id for tenant in all_of(database, Tenant)} == {"first", "org_0"}


def test_trouble_of_the_database_is_not_multiplied(
    held: tuple[Held, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that cannot be used is asked once for a group, not once more for each message."""
    store = Intake.accept_all
    asked = []

    def unusable(intake: Intake, session: Session, messages: Sequence[Message], *, now: datetime) -> Any:
        asked.append(len(messages))
        if messages[0].id == "first":
            return store(intake, session, messages, now=now)
        if len(messages) > 1:
            raise OverflowError
        raise OperationalError("INSERT", {}, Exception("disk is full"))

    monkeypatch.setattr(Intake, "accept_all", unusable)

    outcomes = in_one_group(held, *signups(4))

    assert asked == [1, 4, 1]
    assert {type(each) for each in outcomes} == {OperationalError}


def test_mistake_does_not_silence_the_inbox(
    inbox: Inbox, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw is that message's answer; the next message is stored as ever."""
    store = Intake.accept_all

    def sometimes_broken(intake: Intake, session: Session, sent: Sequence[Message], **now: Any) -> Any:
        if any(each.id == "broken" for each in sent):
            raise ZeroDivisionError
        return store(intake, session, sent, **now)

    monkeypatch.setattr(Intake, "accept_all", sometimes_broken)

    with pytest.raises(ZeroDivisionError):
        accept(event("tenant.created"), "broken")

    assert accept(event("tenant.created"), "fine").answer["tenant"] == "org_1"


def test_answer_that_nobody_awaits_does_not_silence_the_inbox(inbox: Inbox, accept: Accept) -> None:
    """A request that was cancelled while its message waited costs the others nothing."""
    inbox.accept(message(event("tenant.created", external_id="org_9"))).cancel()

    assert accept(event("tenant.created")).answer["tenant"] == "org_1"


def test_full_inbox_says_so(held: tuple[Held, Inbox], monkeypatch: pytest.MonkeyPatch) -> None:
    """More messages than may wait are refused at once, and the waiting ones are stored."""
    monkeypatch.setattr(inboxes, "MOST_WAITING", 2)
    holding, inbox = held
    answers = [inbox.accept(message(event("tenant.created")))]
    assert holding.begun.wait(WAIT_S)
    answers += [inbox.accept(message(event("tenant.created"))) for _ in range(2)]

    with pytest.raises(InboxFullError):
        inbox.accept(message(event("tenant.created")))

    holding.may_go_on.set()
    assert all(answer.result(WAIT_S).answer for answer in answers)


def test_closing_stores_what_has_arrived(held: tuple[Held, Inbox], database: Database) -> None:
    """A process that is told to end answers what it has taken."""
    holding, inbox = held
    answers = [inbox.accept(each) for each in signups(3)]
    holding.may_go_on.set()
    inbox.close()

    assert [answer.result(0).answer["tenant"] for answer in answers] == ["org_0", "org_1", "org_2"]


class TestRaces:
    """Several web processes on one database."""

    @pytest.mark.parametrize("copies", [2, 20])
    def test_deliveries_at_once_have_one_effect(
        self, database: Database, two_inboxes: list[Inbox], copies: int
    ) -> None:
        """One message delivered many times at once: one effect, the same answer."""
        sent = message(event("tenant.created", stripe()), "msg_1")

        futures = [two_inboxes[n % 2].accept(sent) for n in range(copies)]
        answers = [future.result(WAIT_S).answer for future in futures]

        assert [answer for answer in answers if answer != answers[0]] == []
        assert len(all_of(database, InboundEvent)) == len(all_of(database, Transition)) == 1

    def test_signups_at_once_share_a_tenant(self, database: Database, two_inboxes: list[Inbox]) -> None:
        """Different messages about one new customer at once make one tenant with everything in it."""
        sent = [message(event("tenant.created", stripe(slot=f"s{n}"), minute=n)) for n in range(10)]

        futures = [two_inboxes[n % 2].accept(each) for n, each in enumerate(sent)]
        assert all(future.result(WAIT_S) for future in futures)

        assert [tenant.external_id for tenant in all_of(database, Tenant)] == ["org_1"]
        assert len(all_of(database, Connection)) == len(all_of(database, Work)) == 10

    @pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
    @pytest.mark.parametrize("same", [True, False], ids=["the same message", "another message"])
    def test_id_that_another_process_stores_at_this_moment(
        self, database: Database, held: tuple[Held, Inbox], intake: Intake, same: bool
    ) -> None:
        """Both look, find nothing and store: the second is answered as if it had come a moment later."""
        other = message(event("tenant.created", external_id="org_0" if same else "other"), "msg_0")
        mine = message(event("tenant.created", external_id="org_0"), "msg_0")
        beside = message(event("tenant.created", external_id="beside"), "msg_1")
        outcomes = []
        with database.write() as session:
            (theirs,) = intake.accept_all(session, [other], now=database.now(session))
            thread = threading.Thread(target=lambda: outcomes.extend(in_one_group(held, mine, beside)))
            thread.start()
            wait_for_a_blocked_session(database)
        thread.join(WAIT_S)

        assert isinstance(theirs, Accepted)
        first, second = outcomes
        if same:
            assert (first.answer, first.is_repeated) == (theirs.answer, True)
        else:
            assert list(first.fields) == ["webhook-id"]
        assert second.answer["tenant"] == "beside"
        assert len(all_of(database, InboundEvent)) == 3

    def test_id_that_is_stored_between_the_two_tries(
        self, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A message that is tried alone may meet another process's as well: the first answer counts."""
        store = Intake.accept_all
        sent = message(event("tenant.created"), "msg_1")
        calls = []

        def late(own: Intake, session: Session, messages: Sequence[Message], *, now: datetime) -> Any:
            calls.append(len(messages))
            if len(calls) == 1:
                raise OverflowError  # the group is broken by another message
            if len(calls) == 2:
                store(own, session, messages, now=now)
                session.add(InboundEvent(**stored_event(sent), tenant_id=new_tenant(session)))
                session.flush()  # refused, as it would be by the row of another process
            return store(own, session, messages, now=now)

        monkeypatch.setattr(Intake, "accept_all", late)

        assert inbox.accept(sent).result(WAIT_S).answer["tenant"] == "org_1"
        assert calls == [1, 1, 1]


def stored_event(sent: Message) -> dict[str, Any]:
    return {
        "source": sent.source,
        "message_id": sent.id,
        "body_digest": sent.body_digest,
        "type": sent.event.type,
        "occurred_at": sent.event.timestamp,
    }


def new_tenant(session: Session) -> Any:
    tenant = Tenant(external_id="theirs", plan="default")
    session.add(tenant)
    session.flush()
    return tenant.id


def wait_for_a_blocked_session(database: Database) -> None:
    """Until some session of this server waits for a lock."""

    def is_blocked() -> bool:
        with database.read() as session:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return bool(session.execute(text(waiting)).scalar())

    eventually(is_blocked)


def test_intake_beside_workers_never_locks_anybody_out(database: Database, two_inboxes: list[Inbox]) -> None:
    """Events about customers whose steps are claimed and recorded at the same moment all come through."""
    tenants = [f"org_{n}" for n in range(4)]
    slots = [stripe(slot=f"s{n}") for n in range(5)]
    for external_id in tenants:
        body = event("tenant.created", *slots, external_id=external_id)
        two_inboxes[0].accept(message(body)).result(WAIT_S)
    done = threading.Event()

    def work(step: Step) -> int:
        recorded = 0
        while not done.is_set():
            with database.write() as session:
                now = database.now(session)
                batch = claim(session, step, limit=7, now=now, lease=timedelta(minutes=1), policy=POLICY)
            results = [
                (each, Verdict("again", "once more", is_eventful=n % 3 > 0))
                for n, each in enumerate(batch.claims)
            ]
            with database.write() as session:
                recorded += len(record(session, results, now=database.now(session)).results)
        return recorded

    def bodies(n: int) -> Iterator[dict[str, Any]]:
        for external_id in (tenants[n % 4], tenants[(n + 1) % 4]):
            yield event("tenant.updated", external_id=external_id, name=f"N{n}", minute=n / 60)
            named = stripe(f"sk_test_{n}", slot=f"s{n % 5}")
            yield event("credential.provided", named, external_id=external_id, minute=n / 60)

    with ThreadPoolExecutor(3) as threads:
        workers = [threads.submit(work, step) for step in (Step.CAPTURE, Step.CAPTURE, Step.CREATE)]
        answers = [two_inboxes[n % 2].accept(message(body)) for n in range(40) for body in bodies(n)]
        try:
            assert all(answer.result(60).answer["applied"] is not None for answer in answers)
        finally:
            done.set()
        assert sum(worker.result(60) for worker in workers[:2]) > 0
    assert {row.lane for row in all_of(database, Work)} == {Lane.LIFECYCLE}
