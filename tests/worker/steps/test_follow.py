"""Following the feed of changed syncs: everything once, then only changes, and nothing is ever missed."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import fakeredis
import httpx
import pytest
from sqlalchemy import text

from foundation.database import utc_now
from models import Attempt, ChangeCursor, Connection, Lane, State, Step, Transition, Work
from models.change_cursor import SYNCS
from tests.support.remote import Remote, answers, breaks
from tests.support.rows import LONG_AGO, added, all_of, let_pass, stored, work_of
from worker.limits import PREFIX, Breaker
from worker.queue.claims import claim
from worker.queue.record import record
from worker.queue.verdict import Verdict
from worker.runtime import Runtime
from worker.steps import follow as follow_module
from worker.steps import run as run_module
from worker.steps.feed import is_due, is_live
from worker.steps.follow import AFTER_A_LISTING, ASK_AGAIN_IN, PAGES_AT_ONCE, STALE_AFTER, follow
from worker.steps.run import run_step

ON_POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"])
"""For what cannot happen on SQLite: it has one writer at a time, and its processes share one host."""

SOON = timedelta(seconds=10)
BAD = {"status": "error", "reason": {"part": "provider", "message": "down"}}


@pytest.fixture(autouse=True)
def has_feed(remote: Remote) -> None:
    remote.has_feed = True


def watched(runtime: Runtime, remote: Remote, state: State = State.BACKFILLING, **columns: Any) -> Connection:
    row = added(runtime.database, state=state, **columns)
    remote.add_sync(id=row.remote_sync_id)
    return row


def ready(runtime: Runtime, remote: Remote, number: int = 1) -> list[Connection]:
    """Connections that are ready, and known to be so from the feed."""
    rows = [watched(runtime, remote) for _ in range(number)]
    remote.complete()
    assert follow(runtime).did == {"ready": number}
    return rows


def follow_later(runtime: Runtime) -> Any:
    let_pass(runtime.database, SOON)
    return follow(runtime)


def feed_of(runtime: Runtime) -> ChangeCursor:
    with runtime.database.read() as session:
        return session.get_one(ChangeCursor, SYNCS)


def asked(remote: Remote) -> list[str]:
    """The cursors that were asked from, in order."""
    return [r.url.params["changed_since"] for r in remote.requests if "changed_since" in r.url.params]


def live(runtime: Runtime) -> bool:
    with runtime.database.read() as session:
        return is_live(session, now=runtime.database.now(session))


def test_first_pass_lists_everything_and_later_ones_only_changes(runtime: Runtime, remote: Remote) -> None:
    """One request tells what changed, however many syncs there are."""
    rows = ready(runtime, remote, 6)
    remote.change(rows[2].remote_sync_id, health=BAD)

    report = follow_later(runtime)

    assert len(remote.requests) == 2
    assert asked(remote)[0] == ""
    assert asked(remote)[1] != ""
    assert report.did == {"degraded": 1}
    bad = stored(runtime.database, rows[2])
    assert (bad.state, bad.error_code, bad.error_message) == (State.DEGRADED, "sync_error", "down")
    assert {stored(runtime.database, row).state for row in rows[3:]} == {State.READY}


def test_quiet_syncs_are_polled_no_more(runtime: Runtime, remote: Remote) -> None:
    """While the feed tells of changes, a ready connection is due for nothing."""
    (row,) = ready(runtime, remote)

    assert live(runtime)
    assert work_of(runtime.database, row).due_at is None
    assert run_step(runtime, Step.POLL).summary == "nothing was due"


def make_due(runtime: Runtime, row: Connection) -> None:
    with runtime.database.write() as session:
        work = session.get_one(Work, (row.id, Lane.LIFECYCLE))
        work.due_at = work.turn_at = LONG_AGO


def listing(runtime: Runtime, *, failing: bool = False) -> None:
    """The first listing of everything has begun and not ended."""
    with runtime.database.write() as session:
        since = runtime.database.now(session) if failing else None
        session.add(ChangeCursor(is_supported=True, cursor="1", due_at=utc_now(), failing_since=since))


def test_calm_syncs_are_put_off_while_everything_is_listed(runtime: Runtime, remote: Remote) -> None:
    """The listing is about to meet a calm one, so it is not read now, and yet stays due; one in motion is."""
    row, moving = watched(runtime, remote, State.READY), watched(runtime, remote)
    listing(runtime)

    report = run_step(runtime, Step.POLL)

    assert report.did["left to the feed"] == 1
    assert remote.called() == [f"GET /v1/syncs/{moving.remote_sync_id}"]
    due_at = work_of(runtime.database, row).due_at
    assert due_at is not None
    assert due_at <= utc_now() + timedelta(minutes=2)


def test_calm_syncs_are_read_while_the_listing_fails(runtime: Runtime, remote: Remote) -> None:
    """A listing that does not get on is no reason to leave anything unread."""
    row = watched(runtime, remote, State.READY)
    listing(runtime, failing=True)

    run_step(runtime, Step.POLL)

    assert remote.called() == [f"GET /v1/syncs/{row.remote_sync_id}"]


def test_listing_ends_the_polls_of_what_it_meets(runtime: Runtime, remote: Remote) -> None:
    """What the listing does not meet stays due: that is how a sync deleted meanwhile is found out."""
    met, missed = watched(runtime, remote, State.READY), added(runtime.database, state=State.READY)
    remote.change(met.remote_sync_id, initial_backfill_completed_at="2026-01-02T00:00:00Z", health="healthy")

    follow(runtime)

    assert work_of(runtime.database, met).due_at is None
    assert work_of(runtime.database, missed).due_at is not None
    run_step(runtime, Step.POLL)
    assert stored(runtime.database, missed).error_code == "sync_vanished"


def test_pages_are_followed_to_the_end(runtime: Runtime, remote: Remote) -> None:
    """A page that is not the last one is followed by the next at once."""
    remote.page_size = 4

    ready(runtime, remote, 10)

    assert len(asked(remote)) == 3
    assert len(set(asked(remote))) == 3


def test_long_feed_is_read_in_turns(runtime: Runtime, remote: Remote) -> None:
    """One run reads so many pages; the next one goes on at once, from where it ended."""
    remote.page_size = 1
    for _ in range(PAGES_AT_ONCE + 2):
        watched(runtime, remote)
    remote.complete()

    first = follow(runtime)
    between = live(runtime)
    second = follow(runtime)

    assert (first.is_full, second.is_full) == (True, False)
    assert (between, live(runtime)) == (False, True)
    assert {row.state for row in all_of(runtime.database, Connection)} == {State.READY}


def test_uneventful_page_writes_nothing(runtime: Runtime, remote: Remote) -> None:
    """A change that means nothing for us costs neither a row of work nor one of a connection."""
    (row,) = ready(runtime, remote)
    before = stored(runtime.database, row), work_of(runtime.database, row)
    attempts = len(all_of(runtime.database, Attempt))
    remote.change(row.remote_sync_id, name="another name")

    report = follow_later(runtime)

    after = stored(runtime.database, row), work_of(runtime.database, row)
    assert report.summary == "nothing was due"
    assert len(asked(remote)) == 2
    assert after[0].model_dump(exclude={"backfill_started_at"}) == before[0].model_dump(
        exclude={"backfill_started_at"}
    )
    assert after[1].fence == before[1].fence
    assert len(all_of(runtime.database, Attempt)) == attempts


def test_killed_between_call_and_commit_misses_nothing(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records and cursor are committed together: the successor reads the same page again."""
    rows = ready(runtime, remote, 3)
    cursor = feed_of(runtime).cursor
    remote.change(rows[0].remote_sync_id, health=BAD)

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    let_pass(runtime.database, SOON)
    with monkeypatch.context() as patch:
        patch.setattr(follow_module, "record", killed)
        with pytest.raises(SystemExit):
            follow(runtime)
    between = feed_of(runtime).cursor, stored(runtime.database, rows[0]).state
    let_pass(runtime.database, timedelta(minutes=2))
    follow(runtime)

    assert between == (cursor, State.READY)
    assert stored(runtime.database, rows[0]).state is State.DEGRADED
    assert feed_of(runtime).cursor != cursor


def test_older_answer_does_not_overwrite_a_newer_change(runtime: Runtime, remote: Remote) -> None:
    """A poll under way read the sync before it changed: what it found is not recorded any more."""
    (row,) = ready(runtime, remote)
    with runtime.database.write() as session:
        work = session.get_one(Work, (row.id, Lane.LIFECYCLE))
        work.due_at = work.turn_at = LONG_AGO
    with runtime.database.write() as session:
        now = runtime.database.now(session)
        batch = claim(session, Step.POLL, limit=1, now=now, lease=runtime.lease, policy=runtime.policy)
    remote.change(row.remote_sync_id, health=BAD)
    follow_later(runtime)

    with runtime.database.write() as session:
        stale = Verdict(did="ready", why="stale", facts={"health": "healthy"})
        recorded = record(session, [(batch.claims[0], stale)], now=runtime.database.now(session))

    assert recorded.results == []
    after = stored(runtime.database, row)
    assert (after.state, after.health) == (State.DEGRADED, "error")


def test_uneventful_change_takes_a_poll_over_too(runtime: Runtime, remote: Remote) -> None:
    """A sync that turned bad and good again while it was read: the reader's older answer counts no more."""
    (row,) = ready(runtime, remote)
    with runtime.database.write() as session:
        work = session.get_one(Work, (row.id, Lane.LIFECYCLE))
        work.leased_until = runtime.database.now(session) + timedelta(minutes=5)
        fence = work.fence
    remote.touch(str(row.remote_sync_id))

    follow_later(runtime)

    after = work_of(runtime.database, row)
    assert after.fence > fence
    assert (after.leased_until, after.due_at) == (None, None)


def test_deleted_sync_is_confirmed_first(runtime: Runtime, remote: Remote) -> None:
    """That a sync is gone is believed when a read of it by its id says so too."""
    gone, kept, other = ready(runtime, remote, 3)
    remote.remove(gone.remote_sync_id)
    twin = dict(remote.syncs[str(kept.remote_sync_id)])
    remote.remove(kept.remote_sync_id)
    remote.syncs[str(kept.remote_sync_id)] = twin  # the feed was wrong about this one

    follow_later(runtime)

    assert remote.count("GET /v1/syncs/") == 2
    after = stored(runtime.database, gone)
    assert (after.state, after.error_code) == (State.DEGRADED, "sync_vanished")
    assert {stored(runtime.database, row).state for row in (kept, other)} == {State.READY}


def test_deletion_that_cannot_be_confirmed_is_told_again(runtime: Runtime, remote: Remote) -> None:
    """While the read by id fails, the page is not done: the next follower reads it again."""
    (row,) = ready(runtime, remote)
    cursor = feed_of(runtime).cursor
    remote.remove(row.remote_sync_id)
    remote.before = answers(503, to="GET /v1/syncs/")

    first = follow_later(runtime)
    between = feed_of(runtime).cursor, stored(runtime.database, row).state
    remote.before = lambda _request: None
    follow_later(runtime)

    assert first.did == {"to retry: api_unavailable": 1}
    assert between == (cursor, State.READY)
    assert stored(runtime.database, row).state is State.DEGRADED


@pytest.mark.parametrize("status", [400, 422])
def test_refused_read_of_one_sync_does_not_concern_the_feed(
    runtime: Runtime, remote: Remote, status: int
) -> None:
    """An API that refuses the id of a deleted sync says nothing about the cursor; all others are judged."""
    gone, changed = ready(runtime, remote, 2)
    remote.remove(gone.remote_sync_id)
    remote.change(changed.remote_sync_id, health=BAD)
    remote.before = answers(status, {"summary": "no such id"}, to="GET /v1/syncs/")

    follow_later(runtime)
    follow_later(runtime)

    assert asked(remote).count("") == 1
    assert live(runtime)
    assert stored(runtime.database, gone).error_code == "api_rejected"
    assert stored(runtime.database, changed).state is State.DEGRADED


def test_odd_item_of_a_page_is_asked_for(runtime: Runtime, remote: Remote) -> None:
    """One sync with an impossible date: the page counts, and only this one is to be read again."""
    odd, fine = watched(runtime, remote), watched(runtime, remote)
    remote.complete()
    remote.change(odd.remote_sync_id, initial_backfill_completed_at="2026-06-31 00:00:00")

    follow(runtime)

    assert live(runtime)
    assert stored(runtime.database, fine).state is State.READY
    assert stored(runtime.database, odd).error_code == "unusable_answer"
    assert work_of(runtime.database, odd).due_at is not None


@pytest.mark.parametrize("status", [410, 400, 422])
def test_sync_that_was_deleted_before_a_new_listing_is_found_out(
    runtime: Runtime, remote: Remote, status: int
) -> None:
    """The new listing cannot tell of it: its poll, made due at the restart, does."""
    gone, kept = ready(runtime, remote, 2)
    del remote.syncs[str(gone.remote_sync_id)]  # and the feed tells of no deletion
    refused = answers(status, {"summary": "no such cursor"})
    remote.before = lambda r: refused(r) if r.url.params.get("changed_since") else None
    follow_later(runtime)
    remote.before = lambda _request: None

    follow_later(runtime)

    assert asked(remote)[-1] == ""
    assert work_of(runtime.database, kept).due_at is None
    let_pass(runtime.database, AFTER_A_LISTING + runtime.health_pace)
    follow(runtime)
    run_step(runtime, Step.POLL)
    assert stored(runtime.database, gone).error_code == "sync_vanished"
    assert stored(runtime.database, kept).state is State.READY


def test_killed_while_beginning_anew_loses_nothing(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies before every poll is due: its cursor is refused again, by the next one too."""
    (row,) = ready(runtime, remote)
    cursor = feed_of(runtime).cursor
    refused = answers(410, {"summary": "no such cursor"})
    remote.before = lambda r: refused(r) if r.url.params.get("changed_since") else None
    let_pass(runtime.database, SOON)

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(follow_module, "want_polls_again", killed)
        with pytest.raises(SystemExit):
            follow(runtime)
    between = feed_of(runtime).cursor
    let_pass(runtime.database, timedelta(seconds=90))
    follow(runtime)

    assert between == cursor
    assert feed_of(runtime).cursor is None
    assert work_of(runtime.database, row).due_at is not None


@pytest.mark.parametrize("at_first", [True, False])
def test_page_that_breaks_us_silences_nobody(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch, at_first: bool
) -> None:
    """A mistake of ours in one page is tried again; if it lasts, syncs are polled instead."""
    row = watched(runtime, remote, State.READY) if at_first else ready(runtime, remote)[0]
    if at_first:
        listing(runtime)
    remote.touch(str(row.remote_sync_id))

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("mistake")

    monkeypatch.setattr(follow_module, "watched_by_sync", broken)
    first = follow_later(runtime)
    let_pass(runtime.database, STALE_AFTER + SOON)
    follow(runtime)

    assert first.did == {"to retry: internal_error": 1}
    assert feed_of(runtime).is_supported is False
    assert work_of(runtime.database, row).due_at is not None


def test_poll_under_way_while_the_feed_is_lost_gives_a_next_look(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was claimed while the feed was to tell of changes, and is recorded when none does any more."""
    row = watched(runtime, remote)
    follow(runtime)
    remote.complete()
    make_due(runtime, row)
    remote.has_feed = False

    def lose(session: Any, results: Any) -> Any:
        feed = session.get_one(ChangeCursor, SYNCS)
        feed.is_supported, feed.caught_up_at = False, None
        session.flush()
        return results

    monkeypatch.setattr(run_module.shared, "hold_back_released", lose)

    run_step(runtime, Step.POLL)

    assert stored(runtime.database, row).state is State.READY
    assert work_of(runtime.database, row).due_at is not None


@pytest.mark.parametrize("status", [410, 400])
def test_refused_cursor_starts_over(runtime: Runtime, remote: Remote, status: int) -> None:
    """A cursor that is too old, or not known any more, is given up for a new listing."""
    (row,) = ready(runtime, remote)
    remote.change(row.remote_sync_id, health=BAD)
    refused = answers(status, {"summary": "no such cursor"})
    remote.before = lambda r: refused(r) if r.url.params.get("changed_since") else None

    follow_later(runtime)
    follow_later(runtime)

    assert asked(remote)[-1] == ""
    assert stored(runtime.database, row).state is State.DEGRADED
    assert feed_of(runtime).is_supported


def test_lost_feed_hands_over_to_polls(runtime: Runtime, remote: Remote) -> None:
    """An API that has no feed any more: syncs that only it was telling about are polled again."""
    rows = ready(runtime, remote, 3)
    remote.has_feed = False

    follow_later(runtime)

    works = [work_of(runtime.database, row) for row in rows]
    assert all(work.due_at is not None for work in works)
    assert all(work.due_at <= utc_now() + runtime.health_pace for work in works if work.due_at)
    assert not live(runtime)
    let_pass(runtime.database, runtime.health_pace)
    run_step(runtime, Step.POLL)
    assert all(work_of(runtime.database, row).due_at is not None for row in rows), "no poll relies on it"


def test_api_without_a_feed_is_asked_again_after_an_hour(runtime: Runtime, remote: Remote) -> None:
    """Asking costs a whole list there; an API that has got the feed since is followed."""
    remote.has_feed = False
    (row,) = [watched(runtime, remote)]
    remote.complete()

    report = follow(runtime)
    let_pass(runtime.database, ASK_AGAIN_IN * 0.8)
    early = follow(runtime)
    remote.has_feed = True
    let_pass(runtime.database, ASK_AGAIN_IN * 0.4)
    follow(runtime)

    assert report.summary == "1 the API has no feed of changes"
    assert early.summary == "nothing was due"
    assert len(remote.requests) == 2
    assert stored(runtime.database, row).state is State.READY
    assert live(runtime)


REFUSALS = {
    "an unknown parameter": answers(422, {"summary": "changed_since?"}),
    "a list that cannot be read": lambda _request: httpx.Response(200, content=b"["),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_api_that_refuses_to_be_asked_has_no_feed(runtime: Runtime, remote: Remote, refusal: str) -> None:
    """It is not asked again every few seconds."""
    remote.before = REFUSALS[refusal]

    report = follow(runtime)
    follow_later(runtime)

    assert report.did["the API has no feed of changes"] == 1
    assert len(remote.requests) == 1
    assert feed_of(runtime).is_supported is False


def test_list_with_pages_is_no_feed(runtime: Runtime, remote: Remote) -> None:
    """An API that ignores `changed_since` and answers with the first page again and again has no feed."""
    page = {"data": [], "next_cursor": "page-2", "has_more": True}
    remote.before = answers(200, page)

    report = follow(runtime)

    assert len(remote.requests) == 2
    assert not report.is_full
    assert feed_of(runtime).is_supported is False


def test_killed_while_handing_over_leaves_nobody_unwatched(
    runtime: Runtime, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies before all syncs are polled again: the next one wakes the rest."""
    rows = ready(runtime, remote, 3)
    remote.has_feed = False

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    let_pass(runtime.database, SOON)
    with monkeypatch.context() as patch:
        patch.setattr(follow_module, "want_polls_again", killed)
        with pytest.raises(SystemExit):
            follow(runtime)
    between = live(runtime)
    let_pass(runtime.database, timedelta(minutes=2))
    follow(runtime)

    assert not between
    assert all(work_of(runtime.database, row).due_at is not None for row in rows)


def test_feed_that_fails_for_long_hands_over_to_polls(runtime: Runtime, remote: Remote) -> None:
    """For a moment an outage is waited for; after some minutes syncs are polled instead."""
    (row,) = ready(runtime, remote)
    remote.before = breaks(httpx.ReadTimeout)

    first = follow_later(runtime)
    between = work_of(runtime.database, row).due_at
    let_pass(runtime.database, STALE_AFTER)
    follow(runtime)

    assert first.did == {"to retry: api_unavailable": 1}
    assert between is None
    assert work_of(runtime.database, row).due_at is not None


def test_limit_pauses_everybody(runtime: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis) -> None:
    """A 429 of the feed pauses all calls, its own too."""
    watched(runtime, remote)
    remote.before = answers(429, headers={"Retry-After": "30"})

    follow(runtime)
    follow_later(runtime)

    assert len(remote.requests) == 1
    assert 29_000 < redis_server.pttl(PREFIX + "paused") <= 33_000
    assert feed_of(runtime).due_at - utc_now() > timedelta(seconds=25)


def test_feed_that_answers_ends_an_outage(
    runtime: Runtime, remote: Remote, redis_server: fakeredis.FakeRedis
) -> None:
    """The one call that an open breaker lets through may be the feed's: then it closes, and rows go on."""
    parked = added(
        runtime.database,
        state=State.CAPTURED,
        error_code="api_unavailable",
        work={"due_at": utc_now() + timedelta(minutes=10), "attempts": runtime.settings.max_attempts},
    )
    redis_server.hset(PREFIX + "breaker", mapping={"open_since": 1, "probe_at": 1, "probe_s": 2})
    opened = runtime.limits.state().breaker  # type: ignore[attr-defined]

    follow(runtime)

    assert opened is Breaker.OPEN
    assert runtime.limits.state().breaker is Breaker.CLOSED  # type: ignore[attr-defined]
    due_at = work_of(runtime.database, parked).due_at
    assert due_at is not None
    assert due_at <= utc_now()


def test_two_followers_do_not_work_at_once(runtime: Runtime, remote: Remote) -> None:
    """While one worker follows, another one finds nothing to do."""
    watched(runtime, remote)
    others: list[str] = []
    remote.before = lambda _request: others.append(follow(runtime).summary)

    follow(runtime)

    assert others == ["nothing was due"]
    with runtime.database.read() as session:
        assert not is_due(session, now=runtime.database.now(session))


@ON_POSTGRESQL
def test_first_followers_at_the_same_moment(runtime: Runtime, remote: Remote) -> None:
    """Two workers find that nobody has ever followed: one of them does, the other one breaks nothing."""
    with ThreadPoolExecutor() as threads:
        with runtime.database.write() as session:
            now = runtime.database.now(session)
            session.add(ChangeCursor(due_at=now, leased_until=now + timedelta(minutes=1), fence=1))
            session.flush()
            second = threads.submit(follow, runtime)
            wait_until_blocked(runtime)

        assert second.result().summary == "nothing was due"
    assert remote.requests == []


def wait_until_blocked(runtime: Runtime) -> None:
    """Until some transaction waits for another one."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with runtime.database.read() as session:
            if session.connection().execute(waiting).scalar_one():
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_follower_that_lost_its_lease_records_nothing(runtime: Runtime, remote: Remote) -> None:
    """A worker that was frozen for too long finds another one at work, and leaves its page alone."""
    (row,) = ready(runtime, remote)
    cursor = feed_of(runtime).cursor
    remote.change(row.remote_sync_id, health=BAD)

    def taken_over(_request: httpx.Request) -> None:
        with runtime.database.write() as session:
            session.get_one(ChangeCursor, SYNCS).fence += 1

    remote.before = taken_over

    report = follow_later(runtime)

    assert report.summary == "nothing was due"
    assert feed_of(runtime).cursor == cursor
    assert stored(runtime.database, row).state is State.READY


def test_moves_name_the_task(runtime: Runtime, remote: Remote) -> None:
    """What the feed moved can be traced to the task that followed it."""
    watched(runtime, remote)
    remote.complete()

    follow(runtime, "task-7")

    (move,) = all_of(runtime.database, Transition)
    assert (move.to_state, move.task_id) == (State.READY, "task-7")


@pytest.mark.parametrize("state", [State.REQUESTED, State.CAPTURED, State.REMOVING])
def test_step_under_way_is_left_alone(runtime: Runtime, remote: Remote, state: State) -> None:
    """A change of a sync is no news for a connection whose next step is another than to watch it."""
    row = watched(runtime, remote, state, remote_sync_id="known")
    before = work_of(runtime.database, row)

    follow(runtime)

    after = work_of(runtime.database, row)
    assert (after.step, after.fence, after.due_at) == (before.step, before.fence, before.due_at)
    assert stored(runtime.database, row).state is state
