"""Watching a provider in memory: no change is lost, none is stored twice, trouble is told (section 12)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import col, update

from engine.backfill.reader import Reader
from engine.changes.rhythm import ON_THE_CLOCK, Rhythm
from engine.purge import trim_old
from engine.sweep import find_due
from engine.tables import Progress, ReadingKind
from foundation.database import Database, utc_now
from tests.engine.watching import CUSTOMERS, EVENTS, INVOICES, Account, KilledError, Watched

DAY_S = 86_400


def test_changes_reach_the_stream(account: Account, upstream: Any, watch: Any) -> None:
    """Inserts, updates and deletes get a new place, in order; what did not change keeps its own."""
    upstream.fill(CUSTOMERS, 5)
    watched = watch()
    watched.age()
    before = watched.records()

    account.put("cus_1", name="changed")
    account.put("cus_new", name="new")
    account.drop("cus_2")
    watched.look()
    watched.look()

    after = watched.records()
    moved = {
        name for name in after if name not in before or after[name].updated_idx != before[name].updated_idx
    }
    assert moved == {"cus_1", "cus_new", "cus_2"}
    assert min(after[name].updated_idx for name in moved) == 6
    assert after["cus_2"].deleted
    assert after["cus_2"].data == before["cus_2"].data
    assert after["cus_1"].id == before["cus_1"].id
    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_no_change_is_lost_between_backfill_and_watching(account: Account, upstream: Any, watch: Any) -> None:
    """What changes after its page was read, while later pages are, is seen by the first look."""
    upstream.fill(CUSTOMERS, 250)

    def change_behind(request: httpx.Request) -> None:
        if request.url.params.get("starting_after") == "cus_150":
            account.trouble = lambda _request: None
            account.put("cus_249", name="changed behind")
            account.drop("cus_248")

    account.trouble = change_behind
    watched = watch()
    assert watched.alive()["cus_249"]["name"] == "n249"
    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


@pytest.mark.parametrize("oldest_first", [False, True])
def test_many_events_on_many_pages(account: Account, upstream: Any, watch: Any, oldest_first: bool) -> None:
    """Pages of events may run either way; the newest of each object counts."""
    upstream.fill(CUSTOMERS, 3)
    watched = watch()
    watched.age()
    for number in range(250):
        account.put(f"cus_{number % 3}", at=utc_now() - timedelta(seconds=250 - number), name=f"v{number}")
    watched.set_back(timedelta(minutes=10))
    if oldest_first:
        account.events.reverse()

    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_events_of_one_second_are_settled_by_asking(account: Account, upstream: Any, watch: Any) -> None:
    """Deleted and created again, or changed twice, within a second: what is there now counts."""
    upstream.fill(CUSTOMERS, 3)
    watched = watch()
    moment = utc_now()
    account.drop("cus_1", at=moment)
    account.put("cus_1", at=moment, name="back")
    account.put("cus_2", at=moment, name="twice")
    account.drop("cus_2", at=moment)
    account.events.reverse()

    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}
    assert watched.records()["cus_2"].deleted


def test_killed_while_asking(account: Account, upstream: Any, watch: Any) -> None:
    """What is left in doubt is kept with the position, and the next worker asks for it."""
    upstream.fill(CUSTOMERS, 3)
    watched = watch()
    account.put("cus_0", name="a")
    account.put("cus_1", name="b")

    def kill(request: httpx.Request) -> None:
        if request.url.path == f"{CUSTOMERS}/cus_1":
            account.trouble = lambda _request: None
            raise KilledError

    account.trouble = kill
    with pytest.raises(KilledError):
        watched.look()
    account.events.clear()
    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_a_deleted_record_comes_back(account: Account, upstream: Any, watch: Any) -> None:
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    account.drop("cus_0")
    watched.look()
    assert watched.alive() == {}

    account.put("cus_0", name="again")
    watched.look()

    assert watched.alive()["cus_0"]["name"] == "again"


def test_a_page_that_was_overtaken(account: Account, upstream: Any, watch: Any) -> None:
    """A page asked for before a change and stored after it does not undo it."""
    upstream.fill(CUSTOMERS, 2)
    watched = watch()
    stale = dict(upstream.objects[CUSTOMERS][0])

    def overtake(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != CUSTOMERS:
            return None
        account.trouble = lambda _request: None
        account.drop("cus_0")
        account.put("cus_1", name="newer")
        watched.look()
        return httpx.Response(200, json={"data": [stale, stale | {"id": "cus_0"}], "has_more": False})

    account.trouble = overtake
    watched.backfill()

    assert watched.alive() == {"cus_1": upstream.objects[CUSTOMERS][0]}


def test_a_whole_pass_finds_what_no_event_told(account: Account, upstream: Any, watch: Any) -> None:
    """Deletes and changes without an event are seen by the next whole pass, and nothing else moves."""
    upstream.fill(CUSTOMERS, 150)
    watched = watch()
    watched.age()
    before = watched.records()
    account.drop("cus_7", is_told=False)
    upstream.objects[CUSTOMERS][0]["name"] = "changed"

    watched.backfill()

    after = watched.records()
    moved = {name for name in after if after[name].updated_idx != before[name].updated_idx}
    assert moved == {"cus_7", upstream.objects[CUSTOMERS][0]["id"]}
    assert after["cus_7"].deleted
    assert watched.readings(ReadingKind.PASS)[0].due_at > utc_now() + timedelta(hours=23)  # type: ignore[operator]


def test_a_pass_that_ends_early_deletes_nothing(account: Account, upstream: Any, watch: Any) -> None:
    """What lies beyond `max_age_days` was not looked for, so that its absence says nothing."""
    now = int(utc_now().timestamp())
    upstream.objects[CUSTOMERS] = [
        {"id": f"cus_{number}", "object": "customer", "created": now - number * DAY_S}
        for number in range(300)
    ]
    watched = watch(max_age_days=30)
    account.put("cus_200", name="old, but changed today")
    watched.look()
    watched.age()
    assert len(watched.alive()) == 31

    watched.backfill()

    assert len(watched.alive()) == 31


def test_a_feed_that_forgot(account: Account, upstream: Any, watch: Any) -> None:
    """Whoever was away for longer than the provider keeps events reads everything again."""
    upstream.fill(CUSTOMERS, 3)
    watched = watch()
    watched.age()
    account.drop("cus_1", is_told=False)
    watched.set_back(timedelta(days=60))

    watched.look()

    assert watched.api.get(f"{watched.path}/progress").json()["data"][0]["state"] == "waiting"
    watched.backfill()
    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_collections_without_events_are_asked_what_changed(upstream: Any, watch: Any) -> None:
    """A list narrowed by a moment is read with an overlap, so that equal times lose nothing."""
    path, asked = "/v1/balance_transactions", list[str]()
    upstream.fill(path, 3, created=int(utc_now().timestamp()) - 100)

    def narrowed(request: httpx.Request) -> None:
        asked.extend(request.url.params.get_list("created[gte]"))

    watched = watch("stripe:balance_transaction")
    watched.age()
    upstream.interfere = narrowed
    upstream.objects[path].insert(0, {"id": "txn_new", "created": int(utc_now().timestamp())})
    watched.read(ReadingKind.SINCE)
    watched.read(ReadingKind.SINCE)

    assert len(watched.alive()) == 4
    assert [int(each) <= int(utc_now().timestamp()) - 8 * DAY_S for each in asked] == [True, True]
    assert watched.readings(ReadingKind.EVENTS) == []


def test_events_of_other_collections_are_nobodys(account: Account, upstream: Any, watch: Any) -> None:
    """Only what is selected is stored; what is no longer selected stops, and stays in the stream."""
    upstream.fill(CUSTOMERS, 1)
    upstream.fill(INVOICES, 1)
    watched = watch("stripe:customer", "stripe:invoice")
    watched.api.patch(watched.path, json={"collection_ids": ["stripe:customer"]})
    account.put("inv_0", path=INVOICES, total=7)
    account.tell("upcoming", {"object": "invoice"})

    watched.look()

    assert "total" not in watched.records()["inv_0"].data
    assert len(watched.records()) == 2


def test_a_provider_that_repeats_its_events_is_found_out(account: Account, upstream: Any, watch: Any) -> None:
    """A look that is led in circles ends, says so, and goes well again when the provider does."""
    upstream.fill(CUSTOMERS, 1)
    watched, asked = watch(), list[str | None]()
    around = {None: 1, "evt_1": 2, "evt_2": 3, "evt_3": 1}

    def repeat(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("starting_after"))
        event = {"id": f"evt_{around[asked[-1]]}", "created": int(utc_now().timestamp()), "type": "ping"}
        return httpx.Response(200, json={"data": [event], "has_more": True})

    account.trouble = lambda request: repeat(request) if request.url.path == EVENTS else None
    watched.look()

    assert asked[0] is None
    assert 3 < len(asked) < 12
    reason = watched.api.get(watched.path).json()["health"]["reason"]
    assert (reason["code"], reason["message"]) == (
        "collection_failed",
        "stripe repeats the pages of its changes",
    )

    account.trouble = lambda _request: None
    account.put("cus_0", name="seen")
    watched.look()

    assert watched.alive()["cus_0"]["name"] == "seen"
    assert watched.api.get(watched.path).json()["health"]["status"] == "healthy"


def test_trouble_while_watching(account: Account, upstream: Any, watch: Any) -> None:
    """401 is the credential's trouble, 5xx the provider's; both end by themselves."""
    upstream.fill(CUSTOMERS, 1)
    watched = watch()

    for status, code, state in [
        (401, "credential_rejected", "failed"),
        (503, "provider_unavailable", "watching"),
    ]:
        account.trouble = lambda request, status=status: (  # type: ignore[misc]  # bound now, not later
            httpx.Response(status) if request.url.path == EVENTS else None
        )
        watched.look()
        assert watched.api.get(watched.path).json()["health"]["reason"]["code"] == code
        told = watched.api.get(f"{watched.path}/progress").json()["data"][0]
        assert (told["state"], told["reason"]["code"]) == (state, code)

    account.trouble = lambda _request: None
    watched.look()

    sync = watched.api.get(watched.path).json()
    assert sync["health"] == {"status": "healthy", "sync_id": sync["id"]}
    assert watched.api.get(f"/v1/credentials/{sync['credential_id']}").json()["health"]["status"] == "ok"


def test_an_object_that_cannot_be_read_alone(account: Account, upstream: Any, watch: Any) -> None:
    """Its collection is read as a whole instead, and the others' events go on."""
    upstream.fill(CUSTOMERS, 2)
    watched = watch()
    account.put("cus_0", name="refused")
    account.trouble = lambda request: (
        httpx.Response(400) if request.url.path == f"{CUSTOMERS}/cus_0" else None
    )

    watched.look()

    assert watched.readings(ReadingKind.PASS)[0].due_at <= utc_now()  # type: ignore[operator]
    watched.backfill()
    assert watched.alive()["cus_0"]["name"] == "refused"


def test_disabled_catches_up(account: Account, upstream: Any, watch: Any, database: Database) -> None:
    """Nothing is looked at meanwhile, and nothing that happened meanwhile is lost."""
    upstream.fill(CUSTOMERS, 2)
    watched = watch()
    watched.api.patch(watched.path, json={"status": "disabled"})
    account.put("cus_new", name="meanwhile")
    watched.look()
    feed = watched.readings(ReadingKind.EVENTS)[0]
    assert "cus_new" not in watched.alive()
    assert feed.id not in find_due(database, utc_now() + timedelta(days=1))
    assert watched.api.get(f"{watched.path}/progress").json()["data"][0]["state"] == "stopped"

    watched.api.patch(watched.path, json={"status": "active"})
    watched.look()

    assert "cus_new" in watched.alive()


def test_frequency_takes_effect_at_once(upstream: Any, watch: Any) -> None:
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    watched.look()

    watched.api.patch(watched.path, json={"sync_frequency": "4h"})
    rare = watched.readings(ReadingKind.EVENTS)[0]
    watched.api.patch(watched.path, json={"sync_frequency": "continuous"})
    often = watched.readings(ReadingKind.EVENTS)[0]

    assert rare.due_at == rare.created_at + ON_THE_CLOCK
    assert often.due_at <= utc_now()  # type: ignore[operator]


def test_old_records_leave_the_stream(upstream: Any, watch: Any, database: Database) -> None:
    """`max_age_days` is kept up afterwards; what has no date stays (section 2.8)."""
    now = int(utc_now().timestamp())
    upstream.objects[CUSTOMERS] = [
        {"id": "cus_old", "created": now - 6 * DAY_S},
        {"id": "cus_young", "created": now},
        {"id": "cus_undated"},
    ]
    watched = watch(max_age_days=10)
    trim_old(database, utc_now())
    assert len(watched.records()) == 3

    trim_old(database, utc_now() + timedelta(days=5))

    assert watched.records().keys() == {"cus_young", "cus_undated"}


def test_backfill_on_request(account: Account, upstream: Any, watch: Any, hints: Any) -> None:
    """A fresh pass over what was named, once per key; completion stays when it was."""
    upstream.fill(CUSTOMERS, 2)
    upstream.fill(INVOICES, 2)
    watched = watch("stripe:customer", "stripe:invoice")
    first = watched.api.get(watched.path).json()
    customers, invoices = watched.readings(ReadingKind.PASS)
    hints.given.clear()

    answers = [
        watched.api.post(
            f"{watched.path}/backfill",
            json={"collection_ids": ["stripe:invoice"]},
            headers={"Idempotency-Key": "again"},
        )
        for _ in range(2)
    ]

    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].json()["initial_backfill_completed_at"] == first["initial_backfill_completed_at"]
    assert [each for _, each in hints.given] == [invoices.id]
    states = {each["collection_id"]: each["state"] for each in _progress(watched)}
    assert states == {"stripe:customer": "watching", "stripe:invoice": "waiting"}
    refused = watched.api.post(f"{watched.path}/backfill", json={"collection_ids": ["stripe:charge"]})
    assert refused.json()["validation_errors"] == {"collection_ids": ["the sync does not have stripe:charge"]}
    assert watched.api.post(f"{watched.path}/backfill").status_code == 200
    assert {each["state"] for each in _progress(watched)} == {"waiting"}
    assert customers.pass_id != watched.readings(ReadingKind.PASS)[0].pass_id


def test_progress(api: httpx.Client, other: httpx.Client, upstream: Any, watch: Any) -> None:
    """Every collection tells where it is; another organisation hears nothing."""
    upstream.fill(CUSTOMERS, 150)
    watched = watch()
    watched.look()

    (told,) = _progress(watched)

    assert (told["state"], told["records_read"], told["pages_read"]) == ("watching", 150, 2)
    assert told["started_at"] <= told["completed_at"] <= told["last_checked_at"]
    assert "reason" not in told
    assert other.get(f"{watched.path}/progress").status_code == 404
    assert other.post(f"{watched.path}/backfill").status_code == 404


def test_busy_accounts_are_looked_at_more_often(account: Account, upstream: Any, watch: Any) -> None:
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    watched.reader = replace(watched.reader, rhythm=Rhythm(floor_s=2, ceiling_s=60))
    watched.look()
    with watched.database.write() as session:
        quiet = update(Progress).where(col(Progress.sync_id) == watched.id)
        session.exec(quiet.values(changed_at=utc_now() - timedelta(hours=1)))
    watched.look()
    idle = watched.readings(ReadingKind.EVENTS)[0]
    account.put("cus_new")
    watched.look()
    busy = watched.readings(ReadingKind.EVENTS)[0]

    assert 55 < (idle.due_at - utc_now()).total_seconds() <= 60  # type: ignore[operator]
    assert (busy.due_at - utc_now()).total_seconds() <= 2  # type: ignore[operator]


def test_one_huge_account_starves_nobody(
    api: httpx.Client, database: Database, reader: Reader, sync_body: Any, account: Account, upstream: Any
) -> None:
    """A slice ends and leaves the rest for later, in the order in which readings came to be due."""
    upstream.fill(CUSTOMERS, 1_000)
    upstream.fill(INVOICES, 1)
    hasty = replace(reader, slice_s=0.05)
    body = sync_body | {"rate_limit": None}
    huge = Watched(api, database, hasty, body | {"collection_ids": ["stripe:customer"]})
    small = Watched(api, database, hasty, body | {"collection_ids": ["stripe:invoice"]})
    queue = [huge.readings(ReadingKind.PASS)[0].id, small.readings(ReadingKind.PASS)[0].id]

    while not api.get(small.path).json()["initial_backfill_completed_at"]:
        queue = [*queue[1:], *hasty.read(queue[:1])]

    assert len(small.records()) == 1
    assert len(huge.records()) < 1_000


def _progress(watched: Watched) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = watched.api.get(f"{watched.path}/progress").json()["data"]
    return told
