"""Running steps: rows, calls and records together, against an API in memory, on both databases."""

import itertools
import json
from datetime import timedelta
from typing import Any

import fakeredis
import httpx
import pytest
import structlog

from foundation.database import utc_now
from models import Attempt, AttemptOutcome, Connection, State, Step, Tenant, Transition
from tests.support.remote import Remote, answers, breaks
from tests.support.rows import a_tenant, add, added, all_of, stored
from worker.gate import KEY
from worker.rows.wishes import heed
from worker.runtime import Runtime
from worker.steps import poll
from worker.steps.run import StepRun, run_step
from worker.steps.wanted import CONNECTION_KEY


def signed_up(runtime: Runtime, number: int = 1, **columns: Any) -> list[Connection]:
    """Stored connections with sealed credentials, as the intake leaves them."""
    rows = []
    for index in range(number):
        tenant = a_tenant(name=f"Customer {index}")
        body = {"properties": {"kind": "stripe_key", "secret": f"sk_test_{index:08}"}}
        sealed = runtime.vault.seal(json.dumps(body).encode(), context=str(tenant.id))
        add(runtime.database, tenant)
        rows.append(added(runtime.database, tenant, sealed_credential=sealed, slot="default", **columns))
    return rows


def run(runtime: Runtime, step: Step, rows: list[Connection]) -> StepRun:
    return run_step(runtime, step, [row.id for row in rows], task_id="task-1")


def states(runtime: Runtime) -> set[State]:
    return {row.state for row in all_of(runtime.database, Connection)}


def test_from_signup_to_ready_and_away(runtime: Runtime, remote: Remote) -> None:
    """The whole way of some customers: captured, created, polled, ready, deleted, removed."""
    rows = signed_up(runtime, 3)

    captured = run(runtime, Step.CAPTURE, rows)
    assert states(runtime) == {State.CAPTURED}
    assert set(captured.due[Step.CREATE]) == {row.id for row in rows}
    assert all(row.sealed_credential is None for row in all_of(runtime.database, Connection))

    run(runtime, Step.CREATE, rows)
    assert states(runtime) == {State.BACKFILLING}
    assert len(remote.syncs) == 3

    due_now(runtime)
    remote.complete()
    run(runtime, Step.POLL, rows)
    assert states(runtime) == {State.READY}
    assert all(row.ready_at is not None for row in all_of(runtime.database, Connection))

    delete(runtime, rows)
    run(runtime, Step.REMOVE, rows)
    assert states(runtime) == {State.REMOVED}
    assert (remote.syncs, remote.credentials) == ({}, {})


def due_now(runtime: Runtime) -> None:
    with runtime.database.write() as session:
        for row in all_of(runtime.database, Connection):
            session.get_one(Connection, row.id).due_at = row.created_at


def delete(runtime: Runtime, rows: list[Connection]) -> None:
    """What the intake makes of tenant.deleted."""
    with runtime.database.write() as session:
        for row in rows:
            tenant = session.get_one(Tenant, row.tenant_id)
            tenant.is_removed = True
            session.add_all(heed(tenant, session.get_one(Connection, row.id), now=utc_now()))


def test_message_that_comes_again_costs_nothing(runtime: Runtime, remote: Remote) -> None:
    """The same message delivered again after the work makes no call and no change."""
    rows = signed_up(runtime)
    run(runtime, Step.CAPTURE, rows)
    before = len(remote.requests)

    assert run(runtime, Step.CAPTURE, rows) == StepRun()
    assert len(remote.requests) == before


def test_create_whose_answer_was_lost_makes_one_sync(runtime: Runtime, remote: Remote) -> None:
    """The API created the sync but the answer never came: the next try adopts it."""
    rows = signed_up(runtime)
    run(runtime, Step.CAPTURE, rows)
    remote.after = breaks(httpx.ReadTimeout, to="POST /v1/syncs")

    first = run(runtime, Step.CREATE, rows)

    assert first.to_retry == [rows[0].id]
    assert stored(runtime.database, rows[0]).create_sent_at is not None
    remote.after = lambda _request: None
    due_now(runtime)
    run(runtime, Step.CREATE, rows)
    assert len(remote.syncs) == 1
    row = stored(runtime.database, rows[0])
    assert (row.state, row.remote_sync_id) == (State.BACKFILLING, next(iter(remote.syncs)))
    assert row.create_sent_at is None


@pytest.mark.parametrize("status", [429, 503, 500])
def test_refused_change_after_a_create_makes_no_second_sync(
    runtime: Runtime, remote: Remote, status: int
) -> None:
    """A sync that is created but cannot yet be disabled is kept, and only the change is tried again."""
    rows = signed_up(runtime, overrides={"status": "disabled"})
    run(runtime, Step.CAPTURE, rows)
    remote.before = answers(status, to="PATCH")

    for step in (Step.CREATE, Step.UPDATE, Step.CREATE, Step.UPDATE):
        due_now(runtime)
        runtime_gate_opens(runtime)
        run(runtime, step, rows)

    assert len(remote.syncs) == 1
    remote.before = lambda _request: None
    due_now(runtime)
    runtime_gate_opens(runtime)
    run(runtime, Step.UPDATE, rows)
    assert states(runtime) == {State.PAUSED}


def runtime_gate_opens(runtime: Runtime) -> None:
    runtime.gate._redis.delete(KEY)  # type: ignore[attr-defined]


def test_rejected_credential_fails_with_a_reason(runtime: Runtime, remote: Remote) -> None:
    """What the API refuses for good ends as failed: with code, message and advice, and without the secret."""
    rows = signed_up(runtime)
    secret = "sk_test_00000000"
    remote.before = answers(422, {"summary": "bad", "validation_errors": {"secret": [f"no: {secret}"]}})

    outcome = run(runtime, Step.CAPTURE, rows)

    row = stored(runtime.database, rows[0])
    assert row.state is State.FAILED
    assert (row.error_code, row.due_at) == ("api_rejected", None)
    assert row.error_advice
    assert secret not in str(row.error_message)
    (attempt,) = all_of(runtime.database, Attempt)
    assert attempt.outcome is AttemptOutcome.PERMANENT
    assert secret not in str(attempt.error_message)
    assert outcome == StepRun()


def test_one_that_fails_costs_the_others_nothing(runtime: Runtime, remote: Remote) -> None:
    """Of many connections in one message each gets its own outcome."""
    rows = signed_up(runtime, 10)
    bad = b"sk_test_00000003"
    remote.before = lambda r: httpx.Response(422, json={"summary": "no"}) if bad in r.content else None

    run(runtime, Step.CAPTURE, rows)

    found = [row.state for row in all_of(runtime.database, Connection)]
    assert sorted(found) == [State.CAPTURED] * 9 + [State.FAILED]


def test_mistake_of_ours_costs_only_its_row(runtime: Runtime, remote: Remote) -> None:
    """An exception that nobody foresaw is an attempt of that row; the others go on, and it is tried again."""
    rows = signed_up(runtime, 5)
    with runtime.database.write() as session:
        broken = session.get_one(Connection, rows[2].id)
        broken.sealed_credential = runtime.vault.seal(b"no JSON", context=str(broken.tenant_id))

    outcome = run(runtime, Step.CAPTURE, rows)

    row = stored(runtime.database, rows[2])
    assert (row.state, row.error_code) == (State.REQUESTED, "internal_error")
    assert outcome.to_retry == [rows[2].id]
    assert len(outcome.due[Step.CREATE]) == 4


def test_mistake_in_a_verdict_costs_only_its_row(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while polling, where many syncs are read and judged together."""
    rows = [watched(runtime, remote) for _ in range(6)]
    judge = poll.judge

    def broken(claimed: Any, *args: Any, **kwargs: Any) -> Any:
        if claimed.connection.id == rows[1].id:
            raise KeyError("mistake")
        return judge(claimed, *args, **kwargs)

    monkeypatch.setattr(poll, "judge", broken)
    remote.complete()

    run(runtime, Step.POLL, rows)

    found = {row.id: row for row in all_of(runtime.database, Connection)}
    assert found[rows[1].id].error_code == "internal_error"
    assert [found[row.id].state for row in rows].count(State.READY) == 5


def watched(runtime: Runtime, remote: Remote, **columns: Any) -> Connection:
    """A connection whose backfill runs, here and at the API."""
    row = added(runtime.database, **{"state": State.BACKFILLING} | columns)
    remote.add_sync(id=row.remote_sync_id, metadata={CONNECTION_KEY: str(row.id)})
    return row


def test_rate_limit_pauses_everybody(
    runtime: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis
) -> None:
    """A 429 closes the gate for as long as the API says; until then no worker sends anything."""
    rows = signed_up(runtime, 2)
    remote.before = answers(429, {"summary": "slow down"}, headers={"Retry-After": "30"})
    run(runtime, Step.CAPTURE, rows[:1])
    sent = len(remote.requests)

    outcome = run(runtime, Step.CAPTURE, rows[1:])

    assert len(remote.requests) == sent
    assert 29_000 < redis_server.pttl(KEY) <= 33_000
    assert outcome.to_retry == [rows[1].id]
    assert outcome.retry_in >= timedelta(seconds=29)


def test_asking_while_paused_prolongs_nothing(
    runtime: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis
) -> None:
    """However many rows come by while calls are paused, the pause ends when the API said."""
    remote.before = answers(429, headers={"Retry-After": "30"})
    rows = signed_up(runtime, 60)
    run(runtime, Step.CAPTURE, rows[:1])
    paused_for = redis_server.pttl(KEY)

    run(runtime, Step.CAPTURE, rows[1:])

    assert redis_server.pttl(KEY) <= paused_for


def test_waiting_as_told_wears_nobody_out(runtime: Runtime, remote: Remote) -> None:
    """A limit that lasts parks no connection: it was never refused, only told to wait."""
    rows = signed_up(runtime)
    remote.before = answers(429, headers={"Retry-After": "1"})

    for _ in range(2 * runtime.settings.max_attempts):
        due_now(runtime)
        runtime_gate_opens(runtime)
        run(runtime, Step.CAPTURE, rows)

    row = stored(runtime.database, rows[0])
    assert row.attempts <= 1
    assert row.due_at is not None
    assert row.due_at - row.updated_at < timedelta(seconds=2)


def test_exhausted_attempts_park_the_row(runtime: Runtime, remote: Remote) -> None:
    """After its attempts a connection is tried at the slow pace, still due, with code and advice."""
    rows = signed_up(runtime, attempts=runtime.settings.max_attempts - 1)
    remote.before = answers(500, {"summary": "boom"})

    outcome = run(runtime, Step.CAPTURE, rows)

    row = stored(runtime.database, rows[0])
    assert row.state is State.REQUESTED
    assert row.error_code == "api_unavailable"
    assert row.due_at is not None
    assert row.due_at - row.updated_at > timedelta(seconds=0.8 * runtime.settings.parked_retry_s)
    assert outcome.retry_in > timedelta(minutes=10)


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_token_fails_no_customer(runtime: Runtime, remote: Remote, status: int) -> None:
    """A refused token is the operator's to mend: everybody waits and says so, nobody fails."""
    rows = signed_up(runtime)
    remote.before = answers(status, {"summary": "who are you"})

    run(runtime, Step.CAPTURE, rows)

    row = stored(runtime.database, rows[0])
    assert (row.state, row.error_code) == (State.REQUESTED, "api_token_rejected")


def test_vanished_sync_is_noticed_by_an_update(runtime: Runtime, remote: Remote) -> None:
    """A sync that is gone when a change is to be sent degrades the connection as a poll would."""
    row = watched(runtime, remote, state=State.READY, revision=2, applied_revision=1)
    remote.syncs.clear()

    run(runtime, Step.UPDATE, [row])

    row = stored(runtime.database, row)
    assert (row.state, row.error_code) == (State.DEGRADED, "sync_vanished")


def test_vanished_sync_is_noticed_by_a_poll(runtime: Runtime, remote: Remote) -> None:
    """A sync that somebody deleted at the API degrades the connection, with advice."""
    rows = [watched(runtime, remote) for _ in range(6)]
    del remote.syncs[str(rows[3].remote_sync_id)]

    run(runtime, Step.POLL, rows)

    row = stored(runtime.database, rows[3])
    assert (row.state, row.error_code) == (State.DEGRADED, "sync_vanished")
    assert "credential.provided" in str(row.error_advice)


def test_many_of_one_stream_are_read_with_one_list(runtime: Runtime, remote: Remote) -> None:
    """When enough of a stream's syncs are due, one list replaces the gets."""
    rows = [watched(runtime, remote) for _ in range(6)]

    run(runtime, Step.POLL, rows)

    assert remote.called() == ["GET /v1/syncs"]


def test_few_are_read_one_by_one(runtime: Runtime, remote: Remote) -> None:
    """A few syncs are not worth a list."""
    rows = [watched(runtime, remote) for _ in range(3)]

    run(runtime, Step.POLL, rows)

    assert sorted(remote.called()) == sorted(f"GET /v1/syncs/{row.remote_sync_id}" for row in rows)


def test_list_that_fails_falls_back_to_gets(runtime: Runtime, remote: Remote) -> None:
    """A stream whose list is broken is read sync by sync."""
    rows = [watched(runtime, remote) for _ in range(6)]
    remote.complete()
    remote.before = lambda r: httpx.Response(200, json={"data": "?"}) if r.url.path == "/v1/syncs" else None

    run(runtime, Step.POLL, rows)

    assert states(runtime) == {State.READY}


BEFORE_TIME = {"id": "s", "initial_backfill_completed_at": "0001-01-01T00:00:00+14:00"}
GZIP = {"Content-Encoding": "gzip"}
REFUSED_CREDENTIAL = {"status": "error", "reason": {"part": "credential"}}
BODIES: dict[str, httpx.Response] = {
    "no JSON": httpx.Response(200, content=b"<html>"),
    "empty": httpx.Response(200),
    "a list": httpx.Response(200, json=[]),
    "an endless number": httpx.Response(200, content=b'{"id": ' + b"9" * 5000 + b"}"),
    "deep": httpx.Response(200, content=b"[" * 100_000),
    "outside of time": httpx.Response(200, json=BEFORE_TIME),
    "broken compression": httpx.Response(200, headers=GZIP, stream=httpx.ByteStream(b"x")),
    "half a character": httpx.Response(200, content=b'{"id": "\\ud800"}'),
    "an id too long": httpx.Response(200, json={"id": "s" * 1000}),
    "redirect": httpx.Response(302, headers={"Location": "https://elsewhere.test"}),
}


@pytest.mark.parametrize("body", BODIES)
def test_odd_answers_cost_only_a_retry(runtime: Runtime, remote: Remote, body: str) -> None:
    """Whatever comes back, the row is tried again, and its neighbours are polled as ever."""
    odd, fine = watched(runtime, remote), watched(runtime, remote)
    remote.complete()
    remote.before = lambda r: BODIES[body] if r.url.path.endswith(str(odd.remote_sync_id)) else None

    run(runtime, Step.POLL, [odd, fine])

    row = stored(runtime.database, odd)
    assert row.state is State.BACKFILLING
    assert row.error_code in {"unusable_answer", "api_unavailable"}
    assert stored(runtime.database, fine).state is State.READY


ANSWERS = list(
    itertools.product(
        [State.BACKFILLING, State.READY, State.DEGRADED, State.PAUSED],
        [{"status": "healthy"}, REFUSED_CREDENTIAL, {"status": "?" * 99}, "ok", None],
        ["active", "disabled"],
        ["2026-05-01 00:00:00", None],
    )
)


def test_every_answer_can_be_recorded(runtime: Runtime, remote: Remote) -> None:
    """From every state, every kind of answer is stored without an error on both databases."""
    rows = []
    for state, health, status, completed in ANSWERS:
        rows.append(watched(runtime, remote, state=state))
        remote.syncs[str(rows[-1].remote_sync_id)] |= {
            "health": health,
            "status": status,
            "initial_backfill_completed_at": completed,
        }

    run(runtime, Step.POLL, rows)

    found = all_of(runtime.database, Connection)
    assert {(row.polls, row.leased_until) for row in found} == {(1, None)}
    assert "internal_error" not in {row.error_code for row in found}


def test_correlation_travels_to_the_api(runtime: Runtime, remote: Remote) -> None:
    """The id that the webhook was given goes along in every call made for it."""
    rows = signed_up(runtime, correlation_id="abc123")

    run(runtime, Step.CAPTURE, rows)

    assert remote.requests[0].headers["X-Request-Id"] == "abc123"
    assert "correlation_id" not in structlog.contextvars.get_contextvars()


def test_shared_credential_goes_with_its_last_user(runtime: Runtime, remote: Remote) -> None:
    """Two connections of one account share a credential; removing one of them leaves it."""
    remote.credentials["cred_1"] = {"id": "cred_1"}
    first, second = watched(runtime, remote), watched(runtime, remote)
    delete(runtime, [first])

    run(runtime, Step.REMOVE, [first])
    assert set(remote.credentials) == {"cred_1"}

    delete(runtime, [second])
    run(runtime, Step.REMOVE, [second])
    assert remote.credentials == {}


def test_history_tells_the_task(runtime: Runtime) -> None:
    """Every move can be traced to the task that made it."""
    run(runtime, Step.CAPTURE, signed_up(runtime))

    (moved,) = all_of(runtime.database, Transition)
    assert moved.task_id == "task-1"
