"""What two readings saw differently at the same moment is settled, also where no event tells (section 12)."""

from datetime import timedelta
from typing import Any

import httpx

from engine.tables import ReadingKind
from foundation.database import utc_now
from tests.engine.watching import CUSTOMERS, Account


def test_a_page_and_an_event_that_crossed(account: Account, upstream: Any, watch: Any) -> None:
    """The event was stored while the page, which shows something newer, was under way."""
    upstream.fill(CUSTOMERS, 2)
    watched = watch()
    watched.age()

    def cross(request: httpx.Request) -> None:
        if request.url.path == CUSTOMERS:
            account.trouble = lambda _request: None
            account.put("cus_0", name="told")
            watched.look()
            upstream.objects[CUSTOMERS][0]["name"] = "not told"

    account.trouble = cross
    watched.backfill()
    assert watched.alive()["cus_0"]["name"] == "told"
    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_gone_just_before_a_pass(account: Account, upstream: Any, watch: Any) -> None:
    """An event told of it as the pass began, which did not meet it."""
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    account.put("cus_new", name="short-lived")
    watched.look()
    account.drop("cus_new", is_told=False)

    watched.backfill()
    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_gone_before_its_event_was_seen(account: Account, upstream: Any, watch: Any) -> None:
    """A pass that began later did not meet it: an event from before does not bring it back."""
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    account.put("cus_new", name="short-lived")
    account.drop("cus_new", is_told=False)

    watched.backfill()
    watched.look()

    assert watched.alive() == {each["id"]: each for each in upstream.objects[CUSTOMERS]}


def test_an_object_that_a_pass_overtook(account: Account, upstream: Any, watch: Any) -> None:
    """What was asked for before the pass, and arrived after it, does not undo it."""
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    account.put("cus_0", name="told")
    stale = dict(upstream.objects[CUSTOMERS][0])

    def overtake(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != f"{CUSTOMERS}/cus_0":
            return None
        account.trouble = lambda _request: None
        upstream.objects[CUSTOMERS][0]["name"] = "not told"
        watched.backfill()
        return httpx.Response(200, json=stale)

    account.trouble = overtake
    watched.look()

    assert watched.alive()["cus_0"]["name"] == "not told"


def test_a_pass_need_not_tell_twice(account: Account, upstream: Any, watch: Any) -> None:
    """An event from before the last pass about what that did not meet, and what cannot be read alone."""
    upstream.fill(CUSTOMERS, 1)
    watched = watch()
    account.put("cus_new", name="short-lived", at=utc_now() - timedelta(seconds=10))
    account.drop("cus_new", is_told=False)
    account.trouble = lambda request: httpx.Response(400) if "cus_new" in request.url.path else None

    watched.look()

    assert "cus_new" not in watched.records()
    [whole] = watched.readings(ReadingKind.PASS)
    assert whole.due_at > utc_now() + timedelta(hours=23)
