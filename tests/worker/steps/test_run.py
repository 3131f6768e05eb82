"""Running steps: rows, calls and records together, against an API in memory, on both databases."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import fakeredis
import httpx
import pytest

from foundation.database import new_id, utc_now
from models import Attempt, AttemptOutcome, Connection, Lane, State, Step, Tenant, Transition, Work
from tests.support.remote import Remote, answers, breaks
from tests.support.rows import (
    LONG_AGO,
    a_tenant,
    a_work,
    add,
    added,
    all_of,
    let_pass,
    stored,
    work_of,
)
from worker.limits import PREFIX, RedisLimits
from worker.management import ManagementApi
from worker.management.client import MAX_CALLS
from worker.queue.claims import claim
from worker.queue.desired import apply_desired
from worker.queue.history import write_moves
from worker.queue.want import want_work
from worker.runtime import Runtime
from worker.settings import Settings
from worker.steps import run as run_module
from worker.steps.report import Report
from worker.steps.run import run_step
from worker.steps.wanted import CONNECTION_KEY

MINUTE = timedelta(minutes=1)
REFUSED_CREDENTIAL = {"status": "error", "reason": {"part": "credential", "message": "401"}}


def sealed(runtime: Runtime, connection_id: Any, secret: str) -> str:
    body = {"properties": {"kind": "stripe_key", "secret": secret}}
    return runtime.vault.seal(json.dumps(body).encode(), context=str(connection_id))


def signed_up(runtime: Runtime, number: int = 1, **columns: Any) -> list[Connection]:
    """Stored connections with sealed credentials, as the intake leaves them."""
    rows = []
    for index in range(number):
        tenant = a_tenant(name=f"Customer {index}")
        add(runtime.database, tenant)
        own = {
            "id": (connection_id := new_id()),
            "sealed_credential": sealed(runtime, connection_id, f"sk_test_{index:08}"),
            "clock": {"credential": "2026-01-01T00:00:00+00:00"},
            "slot": "default",
        }
        rows.append(added(runtime.database, tenant, **own | columns))
    return rows


def watched(runtime: Runtime, remote: Remote, **columns: Any) -> Connection:
    """A connection whose backfill runs, here and at the API."""
    row = added(runtime.database, **{"state": State.BACKFILLING} | columns)
    remote.add_sync(
        id=row.remote_sync_id, stream_id=row.remote_stream_id, metadata={CONNECTION_KEY: str(row.id)}
    )
    return row


def run(runtime: Runtime, step: Step) -> Report:
    return run_step(runtime, step, task_id="task-1")


def states(runtime: Runtime) -> set[State]:
    return {row.state for row in all_of(runtime.database, Connection)}


def due_now(runtime: Runtime) -> None:
    """Whatever waits for its time waits no longer, and neither do calls that were paused."""
    with runtime.database.write() as session:
        for row in all_of(runtime.database, Work):
            work = session.get_one(Work, (row.connection_id, row.lane))
            work.due_at = work.turn_at = LONG_AGO if work.due_at else None
    calls_go_on(runtime)


def calls_go_on(runtime: Runtime) -> None:
    runtime.limits._redis.delete(PREFIX + "paused")  # type: ignore[attr-defined]


def as_an_event_would(runtime: Runtime, row: Connection, **changes: Any) -> None:
    """What the intake makes of an event about this connection or its tenant."""
    with runtime.database.write() as session:
        connection = session.get_one(Connection, row.id)
        tenant = session.get_one(Tenant, row.tenant_id)
        tenant.is_removed = changes.pop("is_removed", tenant.is_removed)
        for name, value in changes.items():
            setattr(connection, name, value)
        connection.revision += 1
        given = "sealed_credential" in changes
        moves = apply_desired(tenant, connection, credential_given=given)
        session.flush()
        write_moves(session, moves)
        want_work(session, [connection], now=runtime.database.now(session))


def delete(runtime: Runtime, rows: list[Connection]) -> None:
    for row in rows:
        as_an_event_would(runtime, row, is_removed=True)


def test_from_signup_to_ready_and_away(runtime: Runtime, remote: Remote) -> None:
    """The whole way of some customers: captured and created in one run, ready, deleted, removed."""
    rows = signed_up(runtime, 3)

    assert run(runtime, Step.CAPTURE).summary == "3 captured, 3 created"
    assert states(runtime) == {State.BACKFILLING}
    assert len(remote.syncs) == 3
    assert all(row.sealed_credential is None for row in all_of(runtime.database, Connection))

    due_now(runtime)
    remote.complete()
    assert run(runtime, Step.POLL).summary == "3 ready"
    assert states(runtime) == {State.READY}
    assert all(row.ready_at is not None for row in all_of(runtime.database, Connection))

    delete(runtime, rows)
    assert run(runtime, Step.REMOVE).summary == "3 removed"
    assert states(runtime) == {State.REMOVED}
    assert (remote.syncs, remote.credentials) == ({}, {})
    assert runtime.leases.held() == {}
    assert {(work.due_at, work.leased_until) for work in all_of(runtime.database, Work)} == {(None, None)}


def test_each_effect_is_recorded_before_the_next_begins(runtime: Runtime, remote: Remote) -> None:
    """When the create is sent, the imported credential and the intent to create are in the database."""
    (row,) = signed_up(runtime)
    seen: list[Connection] = []
    leases: list[Work] = []

    def look(request: httpx.Request) -> None:
        if (request.method, request.url.path) == ("POST", "/v1/syncs"):
            seen.append(stored(runtime.database, row))
            leases.append(work_of(runtime.database, row))

    remote.before = look

    run(runtime, Step.CAPTURE)

    assert [(each.state, each.sealed_credential) for each in seen] == [(State.CAPTURED, None)]
    assert seen[0].remote_credential_id in remote.credentials
    assert seen[0].create_sent_at is not None
    assert leases[0].step is Step.CREATE
    assert leases[0].leased_until is not None


def test_event_during_a_call_is_not_lost(runtime: Runtime, remote: Remote) -> None:
    """A new credential that arrives while the old one is imported is imported next; one sync comes of it."""
    (row,) = signed_up(runtime)

    def meanwhile(request: httpx.Request) -> None:
        if remote.count("POST /v1/credentials") == 1 and request.url.path == "/v1/credentials":
            newer = sealed(runtime, row.id, "sk_test_newer")
            as_an_event_would(runtime, row, sealed_credential=newer)

    remote.before = meanwhile
    run(runtime, Step.CAPTURE)
    between = stored(runtime.database, row)
    remote.before = lambda _request: None

    run(runtime, Step.CAPTURE)

    assert (between.state, between.sealed_credential is None) == (State.REQUESTED, False)
    assert b"sk_test_newer" in [r for r in remote.requests if r.url.path == "/v1/credentials"][-1].content
    after = stored(runtime.database, row)
    assert (after.state, after.sealed_credential) == (State.BACKFILLING, None)
    assert after.applied_revision == after.revision
    assert len(remote.syncs) == 1


def test_wakeup_that_comes_again_costs_nothing(runtime: Runtime, remote: Remote) -> None:
    """The same message delivered again after the work makes no call and no change."""
    signed_up(runtime)
    run(runtime, Step.CAPTURE)
    before = len(remote.requests)

    assert run(runtime, Step.CAPTURE).summary == "nothing was due"
    assert len(remote.requests) == before


def test_create_whose_answer_was_lost_makes_one_sync(runtime: Runtime, remote: Remote) -> None:
    """The API created the sync but the answer never came: the next try adopts it."""
    (row,) = signed_up(runtime)
    remote.after = breaks(httpx.ReadTimeout, to="POST /v1/syncs")

    first = run(runtime, Step.CAPTURE)

    assert first.did["to retry: api_unavailable"] == 1
    assert stored(runtime.database, row).create_sent_at is not None
    remote.after = lambda _request: None
    due_now(runtime)
    run(runtime, Step.CREATE)
    assert len(remote.syncs) == 1
    after = stored(runtime.database, row)
    assert (after.state, after.remote_sync_id) == (State.BACKFILLING, next(iter(remote.syncs)))
    assert after.create_sent_at is None


def test_new_credential_after_the_mark_was_lost_makes_no_second_sync(
    runtime: Runtime, remote: Remote
) -> None:
    """Another tool replaced the sync's metadata; then the customer sends a credential: still one sync."""
    (row,) = signed_up(runtime)
    run(runtime, Step.CAPTURE)
    (sync_id,), (credential_id,) = remote.syncs, remote.credentials
    remote.change(sync_id, metadata={"crm": 7})
    remote.before = answers(200, {"id": credential_id}, to="POST /v1/credentials")  # the same account
    as_an_event_would(runtime, row, sealed_credential=sealed(runtime, row.id, "sk_test_newer"))

    report = run(runtime, Step.CAPTURE)
    run(runtime, Step.UPDATE)

    assert report.summary == "1 captured, 1 adopted"
    assert set(remote.syncs) == {sync_id}
    assert stored(runtime.database, row).remote_sync_id == sync_id
    assert remote.syncs[sync_id]["metadata"] == {"crm": 7, CONNECTION_KEY: str(row.id)}


def test_outage_and_one_missing_answer_make_no_second_sync(runtime: Runtime, remote: Remote) -> None:
    """The known sync's read fails and is then answered by a single 404: two answers, but not the same."""
    (row,) = signed_up(runtime)
    run(runtime, Step.CAPTURE)
    (sync_id,), (credential_id,) = remote.syncs, remote.credentials
    remote.change(sync_id, metadata={"crm": 7})
    as_an_event_would(runtime, row, sealed_credential=sealed(runtime, row.id, "sk_test_newer"))
    same_account = answers(200, {"id": credential_id}, to="POST /v1/credentials")
    odd = iter([answers(503, to="GET /v1/syncs/"), answers(404, {"summary": "?"}, to="GET /v1/syncs/")])

    for _ in range(3):
        fault = next(odd, lambda _: None)
        remote.before = lambda request, fault=fault: same_account(request) or fault(request)
        due_now(runtime)
        run(runtime, Step.CAPTURE)
        run(runtime, Step.CREATE)

    assert set(remote.syncs) == {sync_id}
    assert stored(runtime.database, row).remote_sync_id == sync_id


@pytest.mark.parametrize("status", [429, 503, 500])
def test_refused_change_after_a_create_makes_no_second_sync(
    runtime: Runtime, remote: Remote, status: int
) -> None:
    """A sync that is created but cannot yet be disabled is kept, and only the change is tried again."""
    signed_up(runtime, overrides={"status": "disabled"})
    remote.before = answers(status, to="PATCH")

    for step in (Step.CAPTURE, Step.UPDATE, Step.CREATE, Step.UPDATE):
        due_now(runtime)
        run(runtime, step)

    assert len(remote.syncs) == 1
    remote.before = lambda _request: None
    due_now(runtime)
    run(runtime, Step.UPDATE)
    assert states(runtime) == {State.PAUSED}


def test_rejected_credential_fails_with_a_reason(runtime: Runtime, remote: Remote) -> None:
    """What the API goes on refusing ends as failed: with code, message and advice, without the secret."""
    (row,) = signed_up(runtime)
    secret = "sk_test_00000000"
    remote.before = answers(422, {"summary": "bad", "validation_errors": {"secret": [f"no: {secret}"]}})

    first = run(runtime, Step.CAPTURE)
    seen = stored(runtime.database, row)
    for _ in range(runtime.settings.refusals - 1):
        let_pass(runtime.database, MINUTE)
        last = run(runtime, Step.CAPTURE)

    assert (seen.state, seen.error_code) == (State.REQUESTED, "api_rejected")
    assert first.did == {"refused: api_rejected": 1}
    after = stored(runtime.database, row)
    assert (after.state, after.error_code) == (State.FAILED, "api_rejected")
    assert work_of(runtime.database, row).due_at is None
    assert after.error_advice
    assert secret not in str(after.error_message)
    attempts = all_of(runtime.database, Attempt)
    assert [each.outcome for each in attempts].count(AttemptOutcome.PERMANENT) == 1
    assert not any(secret in str(each.error_message) for each in attempts)
    assert last.failed == [f"{external_id(runtime, row)} stripe api_rejected"]


def external_id(runtime: Runtime, row: Connection) -> str:
    with runtime.database.read() as session:
        return session.get_one(Tenant, row.tenant_id).external_id


def test_one_that_fails_costs_the_others_nothing(runtime: Runtime, remote: Remote) -> None:
    """Of many connections in one run each gets its own outcome."""
    signed_up(runtime, 10)
    bad = b"sk_test_00000003"
    remote.before = lambda r: httpx.Response(422, json={"summary": "no"}) if bad in r.content else None

    run(runtime, Step.CAPTURE)

    found = [row.state for row in all_of(runtime.database, Connection)]
    assert sorted(found) == [State.BACKFILLING] * 9 + [State.REQUESTED]


def test_mistake_of_ours_costs_only_its_row(runtime: Runtime, remote: Remote) -> None:
    """An exception that nobody foresaw is an attempt of that row; the others go on, and it is tried again."""
    rows = signed_up(runtime, 5)
    with runtime.database.write() as session:
        broken = session.get_one(Connection, rows[2].id)
        broken.sealed_credential = runtime.vault.seal(b"no JSON", context=str(broken.id))

    report = run(runtime, Step.CAPTURE)

    row = stored(runtime.database, rows[2])
    assert (row.state, row.error_code) == (State.REQUESTED, "internal_error")
    assert report.retry_in is not None
    assert report.did["created"] == 4


def test_mistake_in_a_verdict_costs_only_its_row(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while polling, where many syncs are read and judged together."""
    rows = [watched(runtime, remote) for _ in range(6)]
    judge = run_module.judge

    def broken(claimed: Any, *args: Any, **kwargs: Any) -> Any:
        if claimed.connection_id == rows[1].id:
            raise KeyError("mistake")
        return judge(claimed, *args, **kwargs)

    monkeypatch.setattr(run_module, "judge", broken)
    remote.complete()

    run(runtime, Step.POLL)

    found = {row.id: row for row in all_of(runtime.database, Connection)}
    assert found[rows[1].id].error_code == "internal_error"
    assert [found[row.id].state for row in rows].count(State.READY) == 5


def test_mistake_while_reading_leaves_recorded_answers_alone(runtime: Runtime, remote: Remote) -> None:
    """An exception that nobody foresaw in one read is no outcome of those that were answered before."""
    rows = [watched(runtime, remote, remote_stream_id=f"stream_{n}") for n in range(3)]
    remote.complete()

    def broken(request: httpx.Request) -> None:
        if len(remote.requests) == 3:
            raise KeyError("mistake")

    remote.before = broken

    run(runtime, Step.POLL)

    found = [stored(runtime.database, row) for row in rows]
    assert sorted((row.state, row.error_code or "") for row in found) == [
        (State.BACKFILLING, "internal_error"),
        (State.READY, ""),
        (State.READY, ""),
    ]


@pytest.fixture
def slowly(settings: Settings, limits: RedisLimits, remote: Remote) -> Iterator[Runtime]:
    """A runtime whose API takes its time, so that many calls are under way at once."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.02)
        return remote(request)

    api = ManagementApi("http://api.test", "a-token", transport=httpx.MockTransport(answer))
    with Runtime.open(settings, api=api, limits=limits) as opened:
        yield opened


@pytest.mark.parametrize("step", [Step.CAPTURE, Step.POLL])
def test_limit_stops_the_rest_of_the_batch(
    slowly: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis, step: Step
) -> None:
    """A 429 in the middle of a batch: what is not under way yet is not sent, and all workers pause."""
    if step is Step.CAPTURE:
        signed_up(slowly, 50)
    else:
        for number in range(50):
            watched(slowly, remote, remote_stream_id=f"stream_{number}")
    remote.before = answers(429, {"summary": "slow down"}, headers={"Retry-After": "30"})

    report = run(slowly, step)

    assert len(remote.requests) == MAX_CALLS
    assert report.did == {
        "to retry: api_rate_limited": MAX_CALLS,
        "put off by the API's limit": 50 - MAX_CALLS,
    }
    assert len(all_of(slowly.database, Attempt)) == MAX_CALLS
    told = [row.error_code for row in all_of(slowly.database, Connection) if row.error_code is not None]
    assert told == ["api_rate_limited"] * MAX_CALLS
    assert 29_000 < redis_server.pttl(PREFIX + "paused") <= 33_000
    works = all_of(slowly.database, Work)
    assert {work.attempts for work in works} == {0}
    assert all(work.due_at - utc_now() > timedelta(seconds=25) for work in works)


@pytest.fixture
def bounded(settings: Settings, api: ManagementApi, redis_server: fakeredis.FakeRedis) -> Iterator[Runtime]:
    """A runtime that may make ten calls a second."""
    with Runtime.open(settings, api=api, limits=RedisLimits(redis_server, rate=10, burst=10)) as opened:
        yield opened


@pytest.mark.parametrize("step", [Step.CAPTURE, Step.POLL])
def test_run_sends_no_more_than_it_was_granted(bounded: Runtime, remote: Remote, step: Step) -> None:
    """A run never goes beyond the rate, whatever it finds to ask for; what is put off is told nobody."""
    if step is Step.CAPTURE:
        signed_up(bounded, 30)
    else:
        for number in range(30):
            watched(bounded, remote, remote_stream_id=f"stream_{number}")

    run(bounded, step)

    assert 0 < len(remote.requests) <= 10
    assert all(row.error_code is None for row in all_of(bounded.database, Connection))
    assert {each.outcome for each in all_of(bounded.database, Attempt)} <= {AttemptOutcome.SUCCEEDED}


def test_probe_of_an_open_breaker_is_one_call(
    runtime: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis
) -> None:
    """Also where one list, or many reads, would be asked for: during an outage one call finds out."""
    for number in range(30):
        watched(runtime, remote, remote_stream_id=f"stream_{number // 6}")
    remote.before = answers(503)
    redis_server.hset(PREFIX + "breaker", mapping={"open_since": 1, "probe_at": 1, "probe_s": 2})

    run(runtime, Step.POLL)

    assert len(remote.requests) == 1


def test_create_that_was_put_off_takes_its_intent_back(runtime: Runtime, remote: Remote) -> None:
    """Nothing was sent, so nothing is uncertain: the next try need not wait for it to settle."""
    rows = [added(runtime.database, state=State.CAPTURED) for _ in range(3)]
    remote.before = answers(429, {"summary": "slowly"}, to="POST /v1/syncs", headers={"Retry-After": "5"})

    report = run(runtime, Step.CREATE)

    after = [stored(runtime.database, row) for row in rows]
    assert report.did["put off by the API's limit"] == 2
    assert all(row.create_sent_at is None for row in after)
    assert sum(row.error_code is None for row in after) == 2
    assert len(all_of(runtime.database, Attempt)) == 1
    assert remote.count("POST /v1/syncs") == 1


def test_run_that_dies_sends_nothing_more(
    settings: Settings, remote: Remote, limits: RedisLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When results cannot be recorded the run ends, and its calls end before its leases do."""
    held: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(quick):
            return remote(request)
        try:
            await asyncio.Event().wait()
        finally:
            held.append(len(runtime.leases.held()))
        raise AssertionError("nobody sets it")

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("the database is away")

    api = ManagementApi("http://api.test", "a-token", transport=httpx.MockTransport(answer))
    with Runtime.open(settings, api=api, limits=limits) as runtime:
        rows = [watched(runtime, remote, remote_stream_id=f"stream_{n}") for n in range(3)]
        quick = str(rows[0].remote_sync_id)
        monkeypatch.setattr(run_module, "record", broken)
        with pytest.raises(OSError, match="database"):
            run(runtime, Step.POLL)
        ended = len(held)

    assert (ended, set(held)) == (2, {3})


def test_paused_workers_claim_nothing(runtime: Runtime, remote: Remote) -> None:
    """While the API limits, a run sends nothing, claims nothing, and says how long it has to wait."""
    (row,) = signed_up(runtime)
    runtime.limits.pause(timedelta(seconds=30))

    report = run(runtime, Step.CAPTURE)

    assert report.summary.startswith("1 wait of ")
    assert remote.requests == []
    assert work_of(runtime.database, row).due_at == LONG_AGO


def test_limited_capture_goes_on_with_its_create_later(runtime: Runtime, remote: Remote) -> None:
    """A capture that succeeds in a batch that is limited is kept; its create waits for the next run."""
    signed_up(runtime, 2)
    limited = answers(429, headers={"Retry-After": "30"})
    remote.before = lambda r: limited(r) if len(remote.requests) == 2 else None

    run(runtime, Step.CAPTURE)

    assert {row.state for row in all_of(runtime.database, Connection)} == {State.CAPTURED, State.REQUESTED}
    assert len(remote.requests) == 2
    remote.before = lambda _request: None
    due_now(runtime)
    assert run(runtime, Step.CREATE).summary == "1 created"


def test_limit_without_a_wait_neither_loops_nor_parks(runtime: Runtime, remote: Remote) -> None:
    """`429` with `Retry-After: 0` for a minute: calls pause for ever longer, and go on when it is over."""
    (row,) = signed_up(runtime)
    remote.before = answers(429, headers={"Retry-After": "0"}, to="POST /v1/syncs")
    run(runtime, Step.CAPTURE)
    sent = remote.count("POST /v1/syncs")
    run(runtime, Step.CREATE)
    again_at_once = remote.count("POST /v1/syncs")

    for _ in range(2 * runtime.settings.max_attempts):
        due_now(runtime)
        run(runtime, Step.CREATE)
    work = work_of(runtime.database, row)
    remote.before = lambda _request: None
    let_pass(runtime.database, MINUTE)
    calls_go_on(runtime)
    run(runtime, Step.CREATE)

    assert (sent, again_at_once) == (1, 1)
    assert work.attempts > runtime.settings.max_attempts
    assert work.due_at is not None
    assert work.due_at - utc_now() <= MINUTE
    assert stored(runtime.database, row).state is State.BACKFILLING


def test_waiting_as_told_wears_nobody_out(runtime: Runtime, remote: Remote) -> None:
    """A limit that lasts parks no connection: it was never refused, only told to wait."""
    (row,) = signed_up(runtime)
    remote.before = answers(429, headers={"Retry-After": "1"})

    for _ in range(2 * runtime.settings.max_attempts):
        due_now(runtime)
        run(runtime, Step.CAPTURE)

    work = work_of(runtime.database, row)
    assert work.attempts <= 1
    assert work.due_at is not None
    assert work.due_at - utc_now() < timedelta(seconds=2)


def test_exhausted_attempts_park_the_row(runtime: Runtime, remote: Remote) -> None:
    """After its attempts a connection is tried at the slow pace, still due, with code and advice."""
    (row,) = signed_up(runtime, work={"attempts": runtime.settings.max_attempts - 1})
    remote.before = answers(500, {"summary": "boom"})

    report = run(runtime, Step.CAPTURE)

    after = stored(runtime.database, row)
    assert (after.state, after.error_code) == (State.REQUESTED, "api_unavailable")
    due_at = work_of(runtime.database, row).due_at
    assert due_at is not None
    assert due_at - utc_now() > timedelta(seconds=0.8 * runtime.settings.parked_retry_s)
    assert report.retry_in is not None
    assert report.retry_in > timedelta(minutes=10)


def test_those_that_always_fail_are_parked_beside_those_that_succeed(
    runtime: Runtime, remote: Remote
) -> None:
    """15 connections of 15 tenants that always draw a 503, a new signup each minute: parked, not woken."""
    bad = signed_up(runtime, 15)
    with runtime.database.write() as session:
        for row in bad:
            mine = session.get_one(Connection, row.id)
            mine.sealed_credential = sealed(runtime, row.id, "sk_test_always_503")
    trouble = b"sk_test_always_503"
    remote.before = lambda r: httpx.Response(503) if trouble in r.content else None

    for _ in range(20):
        signed_up(runtime)
        run(runtime, Step.CAPTURE)
        let_pass(runtime.database, MINUTE)

    tried = sum(trouble in request.content for request in remote.requests)
    # parked after max_attempts; one more try is due after a quarter of an hour
    assert 15 * runtime.settings.max_attempts <= tried <= 15 * (runtime.settings.max_attempts + 1)
    found = [stored(runtime.database, row) for row in bad]
    assert {(row.state, row.error_code) for row in found} == {(State.REQUESTED, "api_unavailable")}
    assert len(remote.syncs) == 20


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_token_fails_no_customer(runtime: Runtime, remote: Remote, status: int) -> None:
    """A refused token is the operator's to mend: everybody waits and says so, nobody fails."""
    (row,) = signed_up(runtime)
    remote.before = answers(status, {"summary": "who are you"})

    for _ in range(5):
        run(runtime, Step.CAPTURE)
        let_pass(runtime.database, MINUTE)

    after = stored(runtime.database, row)
    assert (after.state, after.error_code) == (State.REQUESTED, "api_token_rejected")


def poll_for(runtime: Runtime, minutes: int) -> list[set[State]]:
    """Let so many minutes go by with a poll in each; returns the states after each."""
    seen = []
    for _ in range(minutes):
        let_pass(runtime.database, MINUTE)
        run(runtime, Step.POLL)
        seen.append(states(runtime))
    return seen


def test_incident_of_a_provider_fails_nobody(runtime: Runtime, remote: Remote) -> None:
    """A provider refuses the credentials of 50 tenants for a while: all are ready again by themselves."""
    rows = [watched(runtime, remote, state=State.READY, ready_at=LONG_AGO) for _ in range(50)]
    for row in rows:
        remote.change(row.remote_sync_id, health=REFUSED_CREDENTIAL)

    during = poll_for(runtime, 12)
    remote.complete()
    after = poll_for(runtime, 3)

    assert all(State.FAILED not in seen for seen in during + after)
    assert during[0] == {State.DEGRADED}
    assert after[-1] == {State.READY}
    assert all(row.error_code is None for row in all_of(runtime.database, Connection))


def test_incident_is_seen_also_when_the_refusal_is_just_lasting_by_now(
    runtime: Runtime, remote: Remote
) -> None:
    """A refusal that has lasted long enough only when the answer is here fails nobody unseen."""
    rows = [watched(runtime, remote, state=State.DEGRADED, ready_at=LONG_AGO) for _ in range(6)]
    for row in rows:
        remote.change(row.remote_sync_id, health=REFUSED_CREDENTIAL)

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.6)
        return remote(request)

    runtime.api._transport = httpx.MockTransport(answer)
    since = utc_now() - runtime.policy.refusal_lasts + timedelta(seconds=0.4)
    with runtime.database.write() as session:
        for row in rows:
            session.get_one(Connection, row.id).refused_at = since
            session.get_one(Work, (row.id, Lane.LIFECYCLE)).attempts = 10

    run(runtime, Step.POLL)

    assert states(runtime) == {State.DEGRADED}


@pytest.mark.parametrize(
    ("state", "back"), [(State.READY, State.READY), (State.BACKFILLING, State.BACKFILLING)]
)
def test_wrong_key_fails_after_a_while_and_recovers(
    runtime: Runtime, remote: Remote, state: State, back: State
) -> None:
    """One customer alone: degraded at once with the reason, failed when it lasts, back with the sync."""
    row = watched(runtime, remote, state=state)
    remote.change(row.remote_sync_id, health=REFUSED_CREDENTIAL)

    run(runtime, Step.POLL)
    first = stored(runtime.database, row)
    poll_for(runtime, 4)
    lasting = stored(runtime.database, row)
    if back is State.READY:
        remote.complete()
    else:
        remote.change(row.remote_sync_id, health={"status": "initializing"})
    poll_for(runtime, 20)

    assert (first.state, first.error_code) == (State.DEGRADED, "credential_rejected")
    assert (lasting.state, lasting.error_code) == (State.FAILED, "credential_rejected")
    after = stored(runtime.database, row)
    assert (after.state, after.error_code, after.refused_at) == (back, None, None)


def outdated(runtime: Runtime, remote: Remote, **columns: Any) -> Connection:
    """A ready connection of which a change is wanted."""
    row = watched(runtime, remote, state=State.READY, revision=2, applied_revision=1, **columns)
    add(runtime.database, a_work(row, lane=Lane.CHANGES))
    remote.complete()
    return row


def test_refused_change_is_told_beside_the_state(runtime: Runtime, remote: Remote) -> None:
    """The sync goes on and is watched; a change that is accepted later takes the problem away."""
    row = outdated(runtime, remote)
    remote.before = answers(422, {"summary": "no such collection"}, to="PATCH")

    run(runtime, Step.UPDATE)
    run(runtime, Step.POLL)
    refused = stored(runtime.database, row)
    remote.change(row.remote_sync_id, health={"status": "error"})
    poll_for(runtime, 6)
    watched_on = stored(runtime.database, row)
    remote.before = lambda _request: None
    due_now(runtime)
    run(runtime, Step.UPDATE)

    assert (refused.state, refused.error_code) == (State.READY, None)
    assert refused.change_problem is not None
    assert refused.change_problem["code"] == "api_rejected"
    assert (watched_on.state, watched_on.error_code) == (State.DEGRADED, "sync_error")
    after = stored(runtime.database, row)
    assert (after.applied_revision, after.change_problem) == (2, None)


def test_refused_change_is_not_asked_for_again_and_again(runtime: Runtime, remote: Remote) -> None:
    """A change that is refused for an hour is sent a few times, and then at the slow pace."""
    outdated(runtime, remote)
    remote.before = answers(422, {"summary": "no such collection"}, to="PATCH")

    for _ in range(60):
        run(runtime, Step.UPDATE)
        let_pass(runtime.database, MINUTE)

    assert remote.count("PATCH") <= runtime.settings.refusals + 4


def test_stream_that_cannot_be_changed_stays_told(runtime: Runtime, remote: Remote) -> None:
    """The next polls forget neither the problem nor what to do about it."""
    row = outdated(runtime, remote, overrides={"stream_id": "another"})

    run(runtime, Step.UPDATE)
    poll_for(runtime, 12)

    after = stored(runtime.database, row)
    assert (after.state, after.applied_revision) == (State.READY, 2)
    assert after.change_problem is not None
    assert after.change_problem["code"] == "stream_immutable"


def test_change_of_a_vanished_sync_waits_for_the_watching(runtime: Runtime, remote: Remote) -> None:
    """An update that finds no sync says so; the poll degrades the connection and tells what to do."""
    row = outdated(runtime, remote)
    remote.remove(row.remote_sync_id)

    run(runtime, Step.UPDATE)
    first = stored(runtime.database, row)
    run(runtime, Step.POLL)

    assert first.state is State.READY
    assert first.change_problem is not None
    assert first.change_problem["code"] == "sync_not_found"
    after = stored(runtime.database, row)
    assert (after.state, after.error_code) == (State.DEGRADED, "sync_vanished")


def test_vanished_sync_is_noticed_once(runtime: Runtime, remote: Remote) -> None:
    """A sync that somebody deleted degrades its connection, with advice, and with one attempt in all."""
    rows = [watched(runtime, remote) for _ in range(6)]
    remote.remove(rows[3].remote_sync_id)

    poll_for(runtime, 30)

    row = stored(runtime.database, rows[3])
    assert (row.state, row.error_code) == (State.DEGRADED, "sync_vanished")
    assert "credential.provided" in str(row.error_advice)
    assert [each.connection_id for each in all_of(runtime.database, Attempt)].count(row.id) == 1


@pytest.mark.parametrize(
    "trouble", [answers(429, headers={"Retry-After": "5"}), breaks(httpx.ReadTimeout), answers(503)]
)
def test_list_that_fails_costs_one_request(runtime: Runtime, remote: Remote, trouble: Any) -> None:
    """A limit or an outage is not answered with one more request for each connection."""
    for _ in range(20):
        watched(runtime, remote)
    remote.before = trouble

    report = run(runtime, Step.POLL)

    assert remote.called() == ["GET /v1/syncs"]
    assert sum(report.did.values()) == 20


def test_odd_item_in_a_list_costs_only_its_own_connection(runtime: Runtime, remote: Remote) -> None:
    """One sync of a stream with an impossible date: all others of the stream are seen as ever."""
    rows = [watched(runtime, remote) for _ in range(10)]
    remote.complete()
    remote.change(rows[4].remote_sync_id, initial_backfill_completed_at="2026-06-31 00:00:00")

    run(runtime, Step.POLL)

    assert remote.called() == ["GET /v1/syncs", f"GET /v1/syncs/{rows[4].remote_sync_id}"]
    found = [stored(runtime.database, row) for row in rows]
    assert [row.state for row in found].count(State.READY) == 9
    assert found[4].error_code == "unusable_answer"


def test_answers_are_recorded_as_they_arrive(runtime: Runtime, remote: Remote) -> None:
    """A read that hangs does not hold up what the others found."""
    quick = watched(runtime, remote, remote_stream_id="a")
    slow = watched(runtime, remote, remote_stream_id="b")
    remote.complete()
    while_slow: list[State] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(str(slow.remote_sync_id)):
            for _ in range(200):
                while_slow.append(await asyncio.to_thread(lambda: stored(runtime.database, quick).state))
                if while_slow[-1] is State.READY:
                    break
                await asyncio.sleep(0.02)
        return remote(request)

    runtime.api._transport = httpx.MockTransport(answer)

    run(runtime, Step.POLL)

    assert while_slow[-1] is State.READY
    assert states(runtime) == {State.READY}


def test_uneventful_look_moves_only_the_work_row(runtime: Runtime, remote: Remote) -> None:
    """A sync that is as it was leaves nothing in the database but the time of the next look."""
    row = watched(runtime, remote, state=State.READY)
    remote.complete()
    run(runtime, Step.POLL)
    due_now(runtime)
    before, attempts = stored(runtime.database, row), all_of(runtime.database, Attempt)

    run(runtime, Step.POLL)

    assert stored(runtime.database, row).model_dump() == before.model_dump()
    assert all_of(runtime.database, Attempt) == attempts
    assert work_of(runtime.database, row).due_at > utc_now()  # type: ignore[operator]


BEFORE_TIME = {"id": "s", "initial_backfill_completed_at": "0001-01-01T00:00:00+14:00"}
GZIP = {"Content-Encoding": "gzip"}
BODIES: dict[str, Callable[[], httpx.Response]] = {
    "no JSON": lambda: httpx.Response(200, content=b"<html>"),
    "empty": lambda: httpx.Response(200),
    "a list": lambda: httpx.Response(200, json=[]),
    "an endless number": lambda: httpx.Response(200, content=b'{"id": ' + b"9" * 5000 + b"}"),
    "deep": lambda: httpx.Response(200, content=b"[" * 100_000),
    "outside of time": lambda: httpx.Response(200, json=BEFORE_TIME),
    "broken compression": lambda: httpx.Response(200, headers=GZIP, stream=httpx.ByteStream(b"x")),
    "half a character": lambda: httpx.Response(200, content=b'{"id": "\\ud800"}'),
    "an id too long": lambda: httpx.Response(200, json={"id": "s" * 1000}),
    "redirect": lambda: httpx.Response(302, headers={"Location": "https://elsewhere.test"}),
}


@pytest.mark.parametrize("body", BODIES)
def test_odd_answers_cost_only_a_retry(runtime: Runtime, remote: Remote, body: str) -> None:
    """Whatever comes back, the row is tried again, and its neighbours are polled as ever."""
    odd, fine = watched(runtime, remote), watched(runtime, remote)
    remote.complete()
    remote.before = lambda r: BODIES[body]() if r.url.path.endswith(str(odd.remote_sync_id)) else None

    run(runtime, Step.POLL)

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
    for state, health, status, completed in ANSWERS:
        row = watched(runtime, remote, state=state, remote_sync_id=f"sync_{new_id().hex}")
        remote.change(
            row.remote_sync_id, health=health, status=status, initial_backfill_completed_at=completed
        )
    with runtime.database.write() as session:
        for work in all_of(runtime.database, Work):
            mine = session.get_one(Work, (work.connection_id, work.lane))
            mine.step, mine.due_at, mine.turn_at = Step.POLL, LONG_AGO, LONG_AGO

    report = run(runtime, Step.POLL)

    assert sum(report.did.values()) == len(ANSWERS)
    assert {work.leased_until for work in all_of(runtime.database, Work)} == {None}
    assert "internal_error" not in {row.error_code for row in all_of(runtime.database, Connection)}


def test_correlation_travels_to_the_api(runtime: Runtime, remote: Remote) -> None:
    """The id that the webhook was given goes along in every call made for it."""
    signed_up(runtime, correlation_id="abc123")

    run(runtime, Step.CAPTURE)

    sent = [request.headers.get("X-Request-Id") for request in remote.requests]
    assert sent[0] == sent[-1] == "abc123"


def test_named_credential_in_capitals_restarts_nothing(runtime: Runtime, remote: Remote) -> None:
    """An API that spells a UUID in lower case names the same credential: the next event changes nothing."""
    known = "0b9d0e0a-5a6f-4d5e-8f3c-2f1d9a7b6c5d"
    remote.before = answers(200, {"id": known}, to="GET /v1/credentials")
    (row,) = signed_up(runtime, sealed_credential=None, overrides={"credential_id": known.upper()})
    run(runtime, Step.CAPTURE)

    as_an_event_would(runtime, row)

    after = stored(runtime.database, row)
    assert (after.state, after.remote_credential_id) == (State.BACKFILLING, known)
    assert run(runtime, Step.CAPTURE).summary == "nothing was due"


def test_shared_credential_goes_with_its_last_user(runtime: Runtime, remote: Remote) -> None:
    """Two connections of one account share a credential; removing one of them leaves it."""
    remote.credentials["cred_1"] = {"id": "cred_1"}
    first, second = watched(runtime, remote), watched(runtime, remote)
    delete(runtime, [first])

    run(runtime, Step.REMOVE)
    assert set(remote.credentials) == {"cred_1"}

    delete(runtime, [second])
    run(runtime, Step.REMOVE)
    assert remote.credentials == {}


def test_import_during_a_removal_of_the_same_account_survives(runtime: Runtime, remote: Remote) -> None:
    """A credential that was imported while a removal was deleting it is imported again."""
    removal = watched(runtime, remote)
    remote.credentials["cred_1"] = {"id": "cred_1"}
    delete(runtime, [removal])
    with runtime.database.write() as session:  # this worker has just seen that nobody shares the credential
        now = runtime.database.now(session)
        claim(session, Step.REMOVE, limit=1, now=now, lease=MINUTE, policy=runtime.policy)
    (row,) = signed_up(runtime)

    def same_account(request: httpx.Request) -> httpx.Response | None:
        if (request.method, request.url.path) != ("POST", "/v1/credentials"):
            return None
        remote.credentials["cred_1"] = {"id": "cred_1"}
        return httpx.Response(200, json=remote.credentials["cred_1"])

    remote.before = same_account

    run(runtime, Step.CAPTURE)
    held_back = stored(runtime.database, row)
    let_pass(runtime.database, 2 * MINUTE)
    run(runtime, Step.REMOVE)
    removed = dict(remote.credentials)
    let_pass(runtime.database, MINUTE)
    run(runtime, Step.CAPTURE)

    assert (held_back.state, held_back.error_code) == (State.REQUESTED, "credential_released")
    assert held_back.sealed_credential is not None
    assert removed == {}
    after = stored(runtime.database, row)
    assert (after.state, after.remote_credential_id, after.error_code) == (State.BACKFILLING, "cred_1", None)
    assert set(remote.credentials) == {"cred_1"}


def test_import_survives_a_removal_that_never_recorded_the_credential(
    runtime: Runtime, remote: Remote
) -> None:
    """The removing connection's own import was never answered; what it deletes is found by our mark."""
    (removal,) = signed_up(runtime)
    remote.credentials["cred_1"] = {"id": "cred_1", "metadata": {CONNECTION_KEY: str(removal.id)}}
    as_an_event_would(runtime, removal, is_removed=True, state=State.REMOVING)
    (row,) = signed_up(runtime)
    kept: list[Connection] = []

    async def meanwhile(request: httpx.Request) -> httpx.Response:
        if (request.method, request.url.path) == ("POST", "/v1/credentials"):
            return httpx.Response(200, json={"id": "cred_1"})
        if request.method == "DELETE" and not kept:
            await asyncio.to_thread(run, runtime, Step.CAPTURE)
            kept.append(stored(runtime.database, row))
        return remote(request)

    runtime.api._transport = httpx.MockTransport(meanwhile)

    run(runtime, Step.REMOVE)

    assert (kept[0].error_code, kept[0].sealed_credential is None) == ("credential_released", False)


def test_refused_delete_of_a_credential_is_seen_and_tried_again(runtime: Runtime, remote: Remote) -> None:
    """A connection is removed only when its credential is; until then it says what keeps it."""
    row = watched(runtime, remote)
    remote.credentials["cred_1"] = {"id": "cred_1"}
    delete(runtime, [row])
    remote.before = answers(409, {"summary": "in use"}, to="DELETE /v1/credentials")

    for _ in range(10):
        run(runtime, Step.REMOVE)
        let_pass(runtime.database, MINUTE)
    kept = stored(runtime.database, row)
    remote.before = lambda _request: None
    let_pass(runtime.database, timedelta(hours=1))
    run(runtime, Step.REMOVE)
    confirming = stored(
        runtime.database, row
    )  # the sync went with the first try: that it is gone is asked twice
    let_pass(runtime.database, MINUTE)
    run(runtime, Step.REMOVE)

    assert (kept.state, kept.error_code) == (State.REMOVING, "credential_kept")
    assert kept.error_advice
    assert (confirming.state, confirming.error_code) == (State.REMOVING, "removal_unconfirmed")
    after = stored(runtime.database, row)
    assert (after.state, after.error_code) == (State.REMOVED, None)
    assert remote.credentials == {}


def test_credential_that_a_retry_named_goes_with_the_tenant(runtime: Runtime, remote: Remote) -> None:
    """Imported by us, then retried by an operator who named it by its id: the removal still deletes it."""
    (row,) = signed_up(runtime)
    run(runtime, Step.CAPTURE)
    (credential_id,) = remote.credentials
    as_an_event_would(runtime, row, overrides={"credential_id": credential_id})
    run(runtime, Step.CAPTURE)

    delete(runtime, [row])
    run(runtime, Step.REMOVE)

    assert states(runtime) == {State.REMOVED}
    assert (remote.syncs, remote.credentials) == ({}, {})


def test_history_tells_the_task(runtime: Runtime) -> None:
    """Every move can be traced to the task that made it."""
    signed_up(runtime)

    run(runtime, Step.CAPTURE)

    moves = all_of(runtime.database, Transition)
    assert [move.to_state for move in sorted(moves, key=lambda move: move.at)] == [
        State.CAPTURED,
        State.BACKFILLING,
    ]
    assert {move.task_id for move in moves} == {"task-1"}
