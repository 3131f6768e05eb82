"""The pure decisions of change detection: when to look, from where, and whom to believe."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import uuid4

import pytest

from engine.backfill.append import SKEW, Known
from engine.changes.feed import Touch, Verdict, judge_touch, newest_of_each
from engine.changes.position import LONGEST_WALK, MARGIN, Ask, Position
from engine.changes.rhythm import ON_THE_CLOCK, Rhythm, has_gap, look_rest_s, rest_s
from engine.providers.catalogue import RateLimit
from engine.providers.changes import UpdatedSince, spell
from engine.providers.paging import Cursor
from engine.providers.records import UpstreamRecord, gone
from engine.tables import SyncFrequency

NOW = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
CONTINUOUS, EVERY_4H = SyncFrequency
S = timedelta(seconds=1)
RHYTHM = Rhythm(floor_s=1, ceiling_s=30, whole_pass_every_s=86_400)


@pytest.mark.parametrize(
    ("quiet", "wait"), [(0 * S, 1), (60 * S, 1), (600 * S, 10), (1_800 * S, 30), (timedelta(days=9), 30)]
)
def test_the_quieter_the_rarer(quiet: timedelta, wait: int) -> None:
    """A continuous sync is looked at within its bounds, as often as it has been moving."""
    assert RHYTHM.next_look(CONTINUOUS, NOW, NOW - quiet, NOW) == NOW + wait * S


def test_every_four_hours_is_on_the_clock() -> None:
    """The time a look takes, or was late by, does not move the next one."""
    anchor = NOW - timedelta(hours=9)

    assert RHYTHM.next_look(EVERY_4H, anchor, NOW, NOW) == anchor + 3 * ON_THE_CLOCK
    assert RHYTHM.next_look(EVERY_4H, anchor, NOW, anchor + 3 * ON_THE_CLOCK) == anchor + 4 * ON_THE_CLOCK


def test_whole_passes_are_rare_unless_they_are_the_only_way() -> None:
    """Without events a continuous sync spends a tenth of its time on passes."""
    started_at = NOW - 100 * S

    watched = RHYTHM.next_pass(CONTINUOUS, started_at, started_at, NOW, is_watched=True)
    unwatched = RHYTHM.next_pass(CONTINUOUS, started_at, started_at, NOW, is_watched=False)
    on_the_clock = RHYTHM.next_pass(EVERY_4H, started_at, started_at, NOW, is_watched=False)

    assert watched == NOW + timedelta(days=1)
    assert unwatched == NOW + 900 * S
    assert on_the_clock == started_at + ON_THE_CLOCK


def test_a_pass_nobody_waits_for_leaves_room() -> None:
    assert rest_s(RateLimit(allowed_requests=50, interval=1)) == pytest.approx(0.08)


def test_looks_leave_room() -> None:
    """However many collections are looked at, together they take half of what is allowed, or a quarter."""
    limit = RateLimit(allowed_requests=20, interval=60)

    assert look_rest_s(limit, 1, 10, is_backfilling=False) == pytest.approx(60)
    assert look_rest_s(limit, 3, 10, is_backfilling=True) == pytest.approx(360)


def test_gap() -> None:
    """A feed that forgets after a month is no use after two."""
    month = timedelta(days=30)

    assert not has_gap(NOW - month, month, NOW)
    assert has_gap(NOW - month - S, month, NOW)


def known(as_of: datetime, *, digest: str = "old", deleted: bool = False) -> Known:
    return Known(uuid4(), digest, uuid4(), deleted, as_of, as_of)


def touch(at: datetime, *, digest: str = "new", deleted: bool = False, contested: bool = False) -> Touch:
    record = UpstreamRecord("cus_1", {"id": "cus_1"}, digest, None, None, deleted)
    return Touch("stripe:customer", record, at, contested)


@pytest.mark.parametrize(
    ("said", "held", "verdict"),
    [
        (touch(NOW), None, Verdict.APPEND),
        (touch(NOW, contested=True), None, Verdict.ASK),
        (touch(NOW), known(NOW - SKEW - S), Verdict.APPEND),
        (touch(NOW), known(NOW), Verdict.ASK),
        (touch(NOW), known(NOW + SKEW), Verdict.ASK),
        (touch(NOW), known(NOW + SKEW + S), Verdict.PASS_OVER),
        (touch(NOW, digest="old"), known(NOW), Verdict.PASS_OVER),
        (touch(NOW, digest="old", contested=True), known(NOW), Verdict.ASK),
        (touch(NOW, deleted=True), known(NOW - SKEW - S), Verdict.APPEND),
        (touch(NOW, deleted=True), known(NOW, deleted=True), Verdict.PASS_OVER),
        (touch(NOW, digest="old"), known(NOW, deleted=True), Verdict.ASK),
    ],
)
def test_whom_to_believe(said: Touch, held: Known | None, verdict: Verdict) -> None:
    """An event is believed when it must be newer than what is held; in doubt the object is asked for."""
    assert judge_touch(said, held) is verdict


@pytest.mark.parametrize(
    ("said", "passed_at", "verdict"),
    [
        (touch(NOW), NOW - SKEW - S, Verdict.APPEND),
        (touch(NOW), NOW, Verdict.ASK),
        (touch(NOW), NOW + timedelta(days=1), Verdict.ASK),
        (touch(NOW, deleted=True), NOW - SKEW - S, Verdict.APPEND),
        (touch(NOW, deleted=True), NOW, Verdict.PASS_OVER),
    ],
)
def test_what_a_pass_did_not_meet(said: Touch, passed_at: datetime, verdict: Verdict) -> None:
    """An event from before the last whole pass does not bring in what that pass found to be gone."""
    assert judge_touch(said, None, passed_at) is verdict


def test_asking_waits_for_a_page() -> None:
    """Objects that a pass left in doubt are asked for within a walk: else its end would skip events."""
    ask = Ask("stripe:customer", "cus_1", NOW)
    idle = Position(since=NOW - timedelta(hours=4)).asking_also([ask, ask])

    assert idle.next_ask is None
    assert idle.having_seen(None, NOW).next_ask == ask
    assert idle.having_seen(None, NOW).without(ask).asks == ()


def test_the_order_of_events_does_not_matter() -> None:
    """The newest of each object counts; two of the same second contest each other."""
    first, second, third = (touch(NOW + each * S, digest=str(each)) for each in range(3))

    for order in permutations([first, second, third]):
        assert newest_of_each(order) == [third]
    for order in permutations([first, second, replace(third, at=second.at)]):
        assert [each.is_contested for each in newest_of_each(order)] == [True]


def test_position() -> None:
    """A walk ends where its newest change was, or shortly before it began: never behind, never ahead."""
    start = Position.starting(NOW)

    walked = start.having_seen(NOW - 5 * S, NOW + 9 * S).having_seen(NOW - 7 * S, NOW + 10 * S)

    assert start.since == NOW - MARGIN
    assert walked.after_walk() == Position(since=NOW - 5 * S)
    assert start.having_seen(None, NOW + 2 * MARGIN).after_walk() == Position(since=NOW + MARGIN)
    assert start.having_seen(NOW - 9 * MARGIN, NOW).after_walk() == start
    assert start.having_seen(NOW + 9 * MARGIN, NOW + S).after_walk() == Position(since=NOW + S - MARGIN)
    assert Position.of(walked.stored()) == walked


@pytest.mark.parametrize(
    ("spelling", "written"),
    [
        ("unix", "1767263400"),
        ("unix_ms", "1767263400000"),
        ("iso", "2026-01-01T10:30:00Z"),
        ("sql", "2026-01-01 10:30:00"),
        ("date", "2026-01-01"),
    ],
)
def test_spellings(spelling: str, written: str) -> None:
    assert spell(NOW, spelling) == written  # type: ignore[arg-type]  # the cases name the literals


def test_templates() -> None:
    """A moment goes into parameters, minus the overlap."""
    soql = UpdatedSince(
        kind="updated_since",
        params={"q": "SELECT Id FROM Lead WHERE LastModifiedDate >= {since}"},
        overlap_s=60,
    )

    assert soql.params_since(NOW) == {
        "q": "SELECT Id FROM Lead WHERE LastModifiedDate >= 2026-01-01T10:29:00Z"
    }


def test_gone_equals_deleted() -> None:
    assert known(NOW, deleted=True).equals(gone("cus_1"))
    assert not known(NOW).equals(gone("cus_1"))


@pytest.mark.parametrize(("lead", "circle"), [(0, 1), (1, 1), (0, 2), (3, 7), (40, 100)])
def test_a_walk_that_comes_back_is_found_out(lead: int, circle: int) -> None:
    """However far in and however wide, within a few times as many pages; a walk begun anew is not blamed."""
    position, cursor = Position.starting(NOW), None
    for page in range(10 * (lead + circle)):
        following: Cursor = {"after": page if page < lead else lead + (page - lead) % circle}
        if position.is_circling(cursor, following):
            break
        position, cursor = position.walked(cursor, following), following

    assert circle <= page <= 4 * (lead + circle)
    assert not position.is_circling(None, following)
    assert position.walked(None, following).pages == 1


def test_a_walk_that_only_goes_on_is_not() -> None:
    """Unless nothing is that long."""
    position, cursor = Position.starting(NOW), None
    for page in range(1000):
        following: Cursor = {"after": page}
        assert not position.is_circling(cursor, following)
        position, cursor = position.walked(cursor, following), following

    assert position.model_copy(update={"pages": LONGEST_WALK}).is_circling(cursor, {"after": "more"})
