"""Backfills against a provider in memory: resumable, paced, honest about trouble (design 9)."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlmodel import case, col, select, update

from engine.authority import Authority, RenewalUnderWayError
from engine.backfill import outcome
from engine.backfill.claim import TURN_AWAY, claim, renew
from engine.backfill.deaths import TOLERATED
from engine.backfill.reader import Reader
from engine.backfill.verdict import unreachable
from engine.hints import READ
from engine.purge import erase_removed
from engine.sweep import find_due
from engine.tables import Progress, Record, Stream, Sync
from foundation.database import Database, utc_now

CUSTOMERS, INVOICES = "/v1/customers", "/v1/invoices"


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing of ours may catch it."""


@pytest.fixture
def start(api: httpx.Client, hints: Any, sync_body: dict[str, Any]) -> Callable[..., tuple[str, list[UUID]]]:
    """Create a sync and give its path and its readings."""

    def start(*collection_ids: str, **more: Any) -> tuple[str, list[UUID]]:
        body = sync_body | {"collection_ids": list(collection_ids or ["stripe:customer"])} | more
        body.setdefault("rate_limit", None)
        answer = api.post("/v1/syncs", json=body | {"rate_limit": more.get("rate_limit")})
        assert answer.status_code == 200, answer.text
        return f"/v1/syncs/{answer.json()['id']}", hints.of(READ)[-len(body["collection_ids"]) :]

    return start


def records(database: Database, sync_path: str) -> list[Record]:
    sync_id = UUID(sync_path.rsplit("/", 1)[1])
    with database.read() as session:
        statement = select(Record).where(Record.sync_id == sync_id).order_by(col(Record.updated_idx))
        return list(session.exec(statement))


def progress(database: Database, progress_id: UUID) -> Progress:
    with database.read() as session:
        return session.get_one(Progress, progress_id)


def make_due(database: Database, *progress_ids: UUID) -> None:
    """As if the wait were over and any lease had run out."""
    now = utc_now()
    with database.write() as session:
        due = update(Progress).where(col(Progress.id).in_(progress_ids))
        ended = case((col(Progress.leased_until).is_not(None), now))
        session.exec(due.values(due_at=now, leased_until=ended, hinted_until=None))


def test_reads_every_page(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """All collections complete: healthy, and the time of completion is set."""
    upstream.fill(CUSTOMERS, 250)
    upstream.fill(INVOICES, 3)
    path, ids = start("stripe:customer", "stripe:invoice")

    assert list(reader.read(ids)) == []

    sync = api.get(path).json()
    assert sync["health"] == {"status": "healthy", "sync_id": sync["id"]}
    assert sync["initial_backfill_completed_at"].endswith("Z")
    found = records(database, path)
    assert len(found) == len({(each.collection_id, each.upstream_id) for each in found}) == 253
    assert [each.updated_idx for each in found] == list(range(1, 254))
    assert upstream.requests[-1].headers["Authorization"] == "Bearer sk_live_7eC39HqLyjWDarjtT1zdp7dc"


def test_completion_is_set_once(
    api: httpx.Client, reader: Reader, upstream: Any, start: Any, hints: Any
) -> None:
    """A collection added later is backfilled and does not move it (section 12)."""
    upstream.fill(CUSTOMERS, 1)
    upstream.fill(INVOICES, 1)
    path, ids = start()
    reader.read(ids)
    completed = api.get(path).json()["initial_backfill_completed_at"]

    api.patch(path, json={"collection_ids": ["stripe:customer", "stripe:invoice"]})
    added = [each for each in hints.of(READ) if each not in ids]
    reader.read(added)

    assert len(added) == 1
    assert api.get(path).json()["initial_backfill_completed_at"] == completed


def test_killed_between_pages(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """A killed worker repeats at most the page it was at, and stores nothing twice."""
    upstream.fill(CUSTOMERS, 450)
    path, ids = start()

    def kill_at_third_page(request: httpx.Request) -> httpx.Response | None:
        if len(upstream.requests) == before + 3:
            raise KilledError
        return None

    before, upstream.interfere = len(upstream.requests), kill_at_third_page
    with pytest.raises(KilledError):
        reader.read(ids)
    assert len(records(database, path)) == 200
    assert list(reader.read(ids)) == []
    assert len(records(database, path)) == 200
    make_due(database, *ids)
    reader.read(ids)

    assert len(records(database, path)) == 450
    assert len(upstream.requests) - before == 6


def test_a_lost_claim_stores_nothing(database: Database, reader: Reader, upstream: Any, start: Any) -> None:
    """A worker that was too slow finds the fence moved and leaves the newer one's work alone."""
    upstream.fill(CUSTOMERS, 150)
    path, ids = start()

    def overtaken(_request: httpx.Request) -> None:
        upstream.interfere = lambda _request: None
        make_due(database, *ids)
        with database.write() as session:
            assert claim(session, ids[0], utc_now()) is not None

    upstream.interfere = overtaken
    reader.read(ids)

    assert records(database, path) == []
    assert progress(database, ids[0]).fence == 2


def test_unchanged_records_are_not_appended_again(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """Reading again moves only what is new or has changed; ids stay."""
    upstream.fill(CUSTOMERS, 120)
    path, ids = start(max_age_days=36_000)
    reader.read(ids)
    before = {each.upstream_id: (each.id, each.updated_idx) for each in records(database, path)}
    upstream.objects[CUSTOMERS][5]["name"] = "changed"
    upstream.objects[CUSTOMERS].insert(0, {"id": "cus_new", "created": 1_800_000_000})

    api.patch(path, json={"max_age_days": None})
    reader.read(ids)

    after = {each.upstream_id: (each.id, each.updated_idx) for each in records(database, path)}
    moved = {each for each in before if before[each] != after[each]}
    assert moved == {upstream.objects[CUSTOMERS][6]["id"]}
    assert all(before[each][0] == after[each][0] for each in before)
    assert sorted(after[each][1] for each in (*moved, "cus_new")) == [121, 122]


def test_a_deadly_page_does_not_take_every_worker(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """After five deaths in a row its reading rests, ever longer, and the health tells; a page ends that."""

    def kill(_request: httpx.Request) -> httpx.Response:
        raise KilledError

    def die() -> None:
        with pytest.raises(KilledError):
            reader.read(ids)
        make_due(database, *ids)

    def rests_s() -> float:
        """How long it rests, once somebody else looks at it."""
        assert list(reader.read(ids)) == []
        due_at = progress(database, ids[0]).due_at
        make_due(database, *ids)
        assert due_at is not None
        return (due_at - utc_now()).total_seconds()

    upstream.fill(CUSTOMERS, 1)
    path, ids = start()
    upstream.interfere = kill
    for _ in range(TOLERATED + 1):
        die()
    first = rests_s()
    health = api.get(path).json()["health"]
    die()
    second = rests_s()
    upstream.interfere = lambda _request: None
    reader.read(ids)

    assert (health["status"], health["reason"]["code"]) == ("warning", "worker_died")
    assert health["reason"]["collection_id"] == "stripe:customer"
    assert 5 < first <= 10 < second <= 20
    assert api.get(path).json()["health"]["status"] == "healthy"
    assert progress(database, ids[0]).deaths == 0


@pytest.mark.parametrize(
    "answer",
    [
        lambda: (_ for _ in ()).throw(LookupError("sk_live_7eC39HqLyjWDarjtT1zdp7dc")),
        lambda: httpx.Response(200, text='{"data": ' + "[" * 100_000),
    ],
    ids=["error", "depths"],
)
def test_mistakes_cost_one_reading(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any, answer: Any
) -> None:
    """What nobody has thought of is noted by its type, and the message's other readings are read."""
    upstream.fill(CUSTOMERS, 1)
    upstream.fill(INVOICES, 1)
    upstream.interfere = lambda request: answer() if request.url.path == CUSTOMERS else None
    path, ids = start("stripe:customer", "stripe:invoice")

    assert list(reader.read(ids)) == []

    assert [each.collection_id for each in records(database, path)] == ["stripe:invoice"]
    failed = progress(database, ids[0])
    assert (failed.leased_until, failed.failures, failed.deaths) == (None, 1, 0)
    assert "sk_live" not in str(failed.trouble)
    assert api.get(path).json()["health"]["reason"]["code"] in {"collection_failed", "provider_unavailable"}


def test_readings_wait_for_a_renewal(
    database: Database, reader: Reader, upstream: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That another worker takes long to come by a token is no trouble: it is tried again soon."""

    def wait(*_: Any, **__: Any) -> None:
        raise RenewalUnderWayError(unreachable("Stripe", "busy"))

    _, ids = start()
    monkeypatch.setattr(Authority, "access", wait)

    assert list(reader.read(ids)) == ids
    waiting = progress(database, ids[0])
    assert (waiting.trouble, waiting.failures, waiting.leased_until) == (None, 0, None)


def test_readings_that_nobody_can_take(
    reader: Reader, upstream: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one stand in the way of others before it has begun."""
    _, ids = start("stripe:customer", "stripe:invoice")
    tried = list[UUID]()

    def fail(_reader: Reader, progress_id: UUID, *_: object) -> None:
        tried.append(progress_id)
        raise OSError

    monkeypatch.setattr(Reader, "_read_one", fail)

    assert list(reader.read(ids)) == []
    assert tried == list(ids)


def test_leases_are_renewed_and_given_up(
    database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """By id and fence: nobody prolongs, or ends, what another worker has by now."""
    _, ids = start("stripe:customer", "stripe:invoice")
    with database.write() as session:
        mine = claim(session, ids[0], utc_now())
        other = claim(session, ids[1], utc_now())
    assert mine is not None
    assert other is not None
    held = {mine.progress_id: mine.fence, other.progress_id: other.fence - 1}
    before, later = progress(database, ids[1]).leased_until, utc_now() + timedelta(seconds=30)

    renew(database, held, later)
    assert [progress(database, each).leased_until for each in ids] == [later, before]

    renew(database, held, None)
    assert [progress(database, each).leased_until for each in ids] == [None, before]


def test_indices_follow_commits(database: Database, reader: Reader, upstream: Any, start: Any) -> None:
    """However many write a stream at once, a reader who saw an index never sees a smaller one appear."""
    upstream.fill(CUSTOMERS, 400)
    started = [start() for _ in range(4)]
    seen: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        known: set[int] = set()
        while not stop.is_set():
            with database.read() as session:
                stream_id = session.exec(
                    select(Sync.stream_id).where(Sync.id == UUID(started[0][0][10:]))
                ).one()
                now = set(session.exec(select(Record.updated_idx).where(Record.stream_id == stream_id)))
            new = sorted(now - known)
            assert not (known and new and new[0] < max(known))
            known = now
            seen.append(len(known))

    def read(ids: Sequence[UUID]) -> None:
        while ids:  # a slice may be over early on a busy machine
            ids = reader.read(ids)

    threads = [threading.Thread(target=read, args=(ids,)) for _, ids in started]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()

    indices = sorted(each.updated_idx for path, _ in started for each in records(database, path))
    assert indices == list(range(1, 1_601))
    assert all(before <= after for before, after in pairwise(seen))


def test_rejected_credential(
    api: httpx.Client,
    database: Database,
    reader: Reader,
    upstream: Any,
    start: Any,
    sync_body: Any,
    hints: Any,
) -> None:
    """401 names the credential, is retried slowly, and ends with the import of a good one."""
    upstream.fill(CUSTOMERS, 1)
    upstream.account = None
    upstream.interfere = lambda request: httpx.Response(401) if request.url.path == CUSTOMERS else None
    path, ids = start()
    reader.read(ids)

    sync = api.get(path).json()
    reason = sync["health"]["reason"]
    assert (sync["health"]["status"], reason["part"], reason["code"]) == (
        "error",
        "credential",
        "credential_rejected",
    )
    assert api.get("/v1/syncs", params={"health.status": "error"}).json()["data"] == [sync]
    assert api.get(f"/v1/credentials/{sync['credential_id']}").json()["health"]["status"] == "error"
    assert progress(database, ids[0]).due_at > utc_now() + timedelta(seconds=20)  # type: ignore[operator]
    assert list(reader.read(ids)) == []

    upstream.interfere = lambda _request: None
    api.post("/v1/credentials", json=sync_body["credential"])
    assert hints.of(READ)[-1:] == ids
    reader.read(ids)

    assert api.get(path).json()["health"]["status"] == "healthy"
    assert api.get(f"/v1/credentials/{sync['credential_id']}").json()["health"]["status"] == "ok"


def test_failing_collection_hides_no_other(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """404 on one collection is that collection's error; the others go on, completion waits."""
    upstream.fill(CUSTOMERS, 5)
    path, ids = start("stripe:price", "stripe:customer")

    reader.read(ids)

    sync = api.get(path).json()
    assert sync["health"]["reason"]["code"] == "collection_failed"
    assert sync["health"]["reason"]["collection_id"] == "stripe:price"
    assert sync["initial_backfill_completed_at"] is None
    assert len(records(database, path)) == 5
    patched = api.patch(path, json={"collection_ids": ["stripe:customer"]}).json()
    assert patched["health"]["status"] == "healthy"
    assert patched["initial_backfill_completed_at"] is not None


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any, form: str
) -> None:
    """429 pauses the whole sync for as long as asked, in both forms of the header."""
    value = "30" if form == "seconds" else format_datetime(utc_now() + timedelta(seconds=30), usegmt=True)
    upstream.fill(CUSTOMERS, 1)
    upstream.interfere = lambda request: (
        httpx.Response(429, headers={"Retry-After": value}) if request.url.path == CUSTOMERS else None
    )
    path, ids = start("stripe:customer", "stripe:invoice")

    reader.read(ids[:1])

    for each in ids:
        due_at = progress(database, each).due_at
        assert due_at is not None
        assert 27 < (due_at - utc_now()).total_seconds() < 31
    health = api.get(path).json()["health"]
    assert (health["status"], health["reason"]["code"]) == ("warning", "rate_limited")


def test_outages_pass(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """5xx and network errors are a warning, tried again until the provider is back."""

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    upstream.fill(CUSTOMERS, 1)
    path, ids = start()
    outages: list[Callable[[httpx.Request], httpx.Response]] = [
        lambda _request: httpx.Response(503),
        lambda _request: httpx.Response(200, text="<html>"),
        lambda _request: httpx.Response(200, json={"data": [{"no": "id"}], "has_more": False}),
        refuse,
    ]
    for outage in outages:
        upstream.interfere = outage
        make_due(database, *ids)
        reader.read(ids)
        health = api.get(path).json()["health"]
        assert (health["status"], health["reason"]["code"]) == ("warning", "provider_unavailable")
    assert progress(database, ids[0]).failures == 4

    upstream.interfere = lambda _request: None
    make_due(database, *ids)
    reader.read(ids)

    assert api.get(path).json()["health"]["status"] == "healthy"


def test_rate_limit(database: Database, reader: Reader, upstream: Any, start: Any) -> None:
    """Three requests a minute are three in all: two pages, as one asked whose the credential is."""
    upstream.fill(CUSTOMERS, 500)
    path, ids = start(rate_limit={"allowed_requests": 3, "interval": 60})

    reader.read(ids)

    due_at = progress(database, ids[0]).due_at
    assert [each.url.path for each in upstream.requests] == ["/v1/account", CUSTOMERS, CUSTOMERS]
    assert len(records(database, path)) == 200
    assert due_at is not None
    assert 50 < (due_at - utc_now()).total_seconds() < 61


def test_waiting_takes_no_thread_from_others(
    database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """When enough threads sleep already, a reading that has to wait is given back, with when to go on."""
    upstream.fill(CUSTOMERS, 500)
    path, ids = start(rate_limit={"allowed_requests": 3, "interval": 9})
    busy = replace(reader, beds=threading.Semaphore(0))

    unfinished = busy.read(ids)

    due_at, hinted_until = progress(database, ids[0]).due_at, progress(database, ids[0]).hinted_until
    assert len(records(database, path)) == 200
    assert due_at is not None
    assert hinted_until is not None
    assert (due_at - utc_now()).total_seconds() <= unfinished[ids[0]] <= 9.1
    assert hinted_until > due_at


def test_max_concurrent_requests(database: Database, reader: Reader, upstream: Any, start: Any) -> None:
    """As many readings of a sync run at once as it may have requests at once."""
    _, ids = start(
        "stripe:customer",
        "stripe:invoice",
        rate_limit={"allowed_requests": 9, "interval": 1, "max_concurrent_requests": 1},
    )

    with database.write() as session:
        first = claim(session, ids[0], utc_now())
    with database.write() as session:
        second = claim(session, ids[1], utc_now())

    assert first is not None
    assert second is None


def test_few_requests_at_once_are_shared_by_turns(
    database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """Whoever waits for the reading that had the only place goes on before that one does."""
    upstream.fill(CUSTOMERS, 300)
    upstream.fill(INVOICES, 100)
    limit = {"allowed_requests": 9, "interval": 1, "max_concurrent_requests": 1}
    path, (first, second) = start("stripe:customer", "stripe:invoice", rate_limit=limit)

    def slice_is_over(_request: httpx.Request) -> None:
        assert dict(reader.read([second])) == {}  # turned away
        reader.stopping.set()

    upstream.interfere = slice_is_over
    told = list(reader.read([first]).items())

    assert len(records(database, path)) == 100
    assert told == [(second, 0.0), (first, TURN_AWAY.total_seconds())]


def test_disabled_stops_and_resumes(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any, hints: Any
) -> None:
    """Disabled within a slice, it goes on later where it stood (section 2.7)."""
    upstream.fill(CUSTOMERS, 450)
    path, ids = start()

    def disable(_request: httpx.Request) -> None:
        upstream.interfere = lambda _request: None
        api.patch(path, json={"status": "disabled"})

    upstream.interfere = disable
    reader.read(ids)
    assert len(records(database, path)) == 100
    assert list(reader.read(ids)) == []
    assert ids[0] not in find_due(database, utc_now() + timedelta(minutes=1))

    api.patch(path, json={"status": "active"})
    assert hints.of(READ)[-1:] == ids
    reader.read(ids)

    assert len(records(database, path)) == 450


@pytest.mark.parametrize("rewinds", [True, False])
def test_deleted_cursor_loses_nothing(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any, rewinds: bool
) -> None:
    """When the record a cursor names is deleted, the walk goes over the known pages and on.

    Some providers then begin at the first page without a word, others refuse the cursor.
    """
    upstream.fill(CUSTOMERS, 350)
    path, ids = start()

    def delete_cursor(request: httpx.Request) -> httpx.Response | None:
        after = request.url.params.get("starting_after")
        if after != "cus_150":
            return None
        upstream.objects[CUSTOMERS] = [each for each in upstream.objects[CUSTOMERS] if each["id"] != after]
        return upstream._page(CUSTOMERS, {"limit": "100"}) if rewinds else httpx.Response(404)

    upstream.interfere = delete_cursor
    reader.read(ids)
    if not rewinds:
        reader.read(ids)

    held = {each.upstream_id for each in records(database, path)}
    assert held >= {each["id"] for each in upstream.objects[CUSTOMERS]}
    assert "cus_150" not in {each["id"] for each in upstream.objects[CUSTOMERS]}
    assert api.get(path).json()["initial_backfill_completed_at"] is not None


def test_provider_that_repeats_itself(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """A provider that ignores the cursor is not read for ever, and not called complete either."""
    upstream.fill(CUSTOMERS, 300)
    upstream.interfere = lambda request: (
        upstream._page(CUSTOMERS, {"limit": "100"}) if request.url.path == CUSTOMERS else None
    )
    path, ids = start()

    assert list(reader.read(ids)) == []

    assert len(upstream.requests) < 6
    sync = api.get(path).json()
    assert sync["health"]["reason"]["code"] == "collection_failed"
    assert sync["initial_backfill_completed_at"] is None


@pytest.mark.parametrize("newest_first", [True, False])
def test_max_age(database: Database, reader: Reader, upstream: Any, start: Any, newest_first: bool) -> None:
    """Older records are not stored; a list from new to old is read no further than needed."""
    now = int(datetime.now(UTC).timestamp())
    upstream.fill(CUSTOMERS, 500, created=now)
    for position, each in enumerate(upstream.objects[CUSTOMERS]):
        each["created"] = now - position * 3_600
    if not newest_first:
        upstream.objects[CUSTOMERS].reverse()
    path, ids = start(max_age_days=5)

    reader.read(ids)

    pages = sum(request.url.path == CUSTOMERS for request in upstream.requests)
    assert len(records(database, path)) == 120
    assert pages == (2 if newest_first else 5)


def test_text_that_no_database_keeps(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any, stream: str
) -> None:
    """Half a character and NUL, in texts, names and ids, become marks; what comes in pairs is whole."""
    body = rb"""{"has_more": false, "data": [{"id": "cus_\u0000", "created": 1700000000, "ok": "\uD83D\uDE00",
        "cut": ["\ud83d"], "n\udc00": {"\u0000": "\\u0000"}}]}"""
    upstream.interfere = lambda request: (
        httpx.Response(200, content=body) if request.url.path == CUSTOMERS else None
    )
    _, ids = start()
    consumer = api.post("/v1/http-consumers", json={"stream_id": stream, "slug": "main"}).json()["id"]

    reader.read(ids)

    [message] = api.get(f"/v1/http-consumers/{consumer}/next").raise_for_status().json()["data"]
    assert message["record"]["upstream_id"] == "cus_\ufffd"
    assert message["record"]["data"] == {
        "id": "cus_\ufffd",
        "created": 1700000000,
        "ok": "\U0001f600",
        "cut": ["?"],
        "n?": {"\ufffd": "\\u0000"},
    }


def test_slices_are_short(database: Database, reader: Reader, upstream: Any, start: Any) -> None:
    """A slice that is over says what is left, and the row says it too."""
    upstream.fill(CUSTOMERS, 300)
    _, ids = start("stripe:customer", "stripe:invoice")
    hasty = Reader(reader.database, reader.safe, reader.catalogue, reader.pace, reader.client, slice_s=0.0)

    assert list(hasty.read(ids)) == ids
    assert progress(database, ids[0]).leased_until is None


def test_a_lost_claim_holds_nobody_back(database: Database, reader: Reader, start: Any) -> None:
    """What the provider told somebody whose reading has been taken over is no longer of use."""
    _, (ours, other) = start("stripe:customer", "stripe:invoice")
    before = progress(database, other).due_at

    for has_lost in (True, False):
        with database.write() as session:
            taken = claim(session, ours, utc_now())
            assert taken is not None
            session.get_one(Progress, ours).fence += has_lost
        reader._rest_ahead(taken, 60)
        make_due(database, ours)

        assert (progress(database, other).due_at == before) is has_lost


def test_sweep_finds_what_nobody_was_told(database: Database, upstream: Any, start: Any) -> None:
    """Due readings are hinted once, and again when the hint came to nothing."""
    _, ids = start()
    soon = utc_now() + timedelta(seconds=6)

    first, at_once, later = (find_due(database, now) for now in (soon, soon, soon + timedelta(seconds=6)))

    assert ids[0] in first
    assert ids[0] not in at_once
    assert ids[0] in later


def test_removed_syncs_are_erased(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any
) -> None:
    """Deleting a sync deletes its readings at once and its records soon."""
    upstream.fill(CUSTOMERS, 120)
    path, ids = start()
    reader.read(ids)

    api.delete(path)
    erase_removed(database)

    assert records(database, path) == []
    with database.read() as session:
        assert session.exec(select(Progress).where(col(Progress.id).in_(ids))).first() is None
        assert session.exec(select(Sync).where(Sync.id == UUID(path[10:]))).first() is None
        assert session.exec(select(Stream)).first() is not None


def test_deleting_a_sync_can_leave_its_records(
    api: httpx.Client, database: Database, reader: Reader, upstream: Any, start: Any, stream: str
) -> None:
    """Consumers go on to get them, and nothing is read any more."""
    upstream.fill(CUSTOMERS, 3)
    path, ids = start()
    reader.read(ids)
    consumer = api.post("/v1/http-consumers", json={"stream_id": stream, "slug": "main"}).json()["id"]

    api.delete(path, params={"keep_records": True}).raise_for_status()
    erase_removed(database)

    assert api.get(path).status_code == 404
    assert len(records(database, path)) == 3
    messages = api.get(f"/v1/http-consumers/{consumer}/next", params={"batch_size": 10}).json()["data"]
    assert {message["record"]["upstream_id"] for message in messages} == {"cus_0", "cus_1", "cus_2"}
    assert api.delete(f"/v1/streams/{stream}").status_code == 422  # because of the consumer
    api.delete(f"/v1/http-consumers/{consumer}").raise_for_status()
    api.delete(f"/v1/streams/{stream}").raise_for_status()
    assert records(database, path) == []


def test_page_and_cursor_commit_together(
    database: Database, reader: Reader, upstream: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after the records were written, before the commit, leaves neither records nor cursor."""
    upstream.fill(CUSTOMERS, 150)
    path, ids = start()

    def crash(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(outcome, "settle", crash)
    with pytest.raises(KilledError):
        reader.read(ids)

    assert records(database, path) == []
    assert progress(database, ids[0]).cursor is None
