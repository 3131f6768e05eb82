"""`GET /v1/syncs?changed_since=` (an addition): a follower hears of every change of every sync."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import event, text
from sqlmodel import Session, col, update

from engine.api.sync_changes import decode, encode
from engine.api.sync_shapes import SyncObject
from engine.purge import purge
from engine.sync_changes import (
    Position,
    PositionLostError,
    adopt_database,
    changes_after,
    is_lost,
    restart_followers,
)
from engine.tables import Sync, SyncChange, SyncFeed
from foundation.database import Database, new_id, utc_now

OF_THE_SYNC = {field.alias or name for name, field in SyncObject.model_fields.items()} - {
    "health",
    "credential",
}
NOT_SHOWN = {"keeps_records", "trimmed_at"}
OTHER_VALUES: dict[str, Any] = {
    "name": "Renamed",
    "status": "disabled",
    "collection_ids": ["stripe:customer"],
    "rate_limit": {"allowed_requests": 1, "interval": 1, "max_concurrent_requests": 0},
    "max_age_days": 3,
    "sync_frequency": "4h",
    "meta": {"a": 2},
    "external_id": "org_2",
    "health_status": "error",
    "health_reason": {
        "part": "provider",
        "code": "rate_limited",
        "message": "m",
        "since": "2026-01-01T00:00:00Z",
    },
    "initial_backfill_completed_at": utc_now(),
    "updated_at": utc_now(),
    "created_at": utc_now(),
    "provider": "hubspot",
}


class Follower:
    """Lists once and then follows, as a worker does."""

    def __init__(self, api: httpx.Client, limit: int = 1_000) -> None:
        self._api = api
        self._limit = limit
        self.cursor = ""
        self.syncs: dict[str, dict[str, Any]] = {}

    def ask(self) -> dict[str, Any]:
        """The next page."""
        asked = {"changed_since": self.cursor, "limit": self._limit}
        answer = self._api.get("/v1/syncs", params=asked)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        assert set(page) == {"data", "next_cursor", "has_more"}
        self.cursor = page["next_cursor"]
        return page

    def follow(self) -> list[dict[str, Any]]:
        """All there is to hear now."""
        heard: list[dict[str, Any]] = []
        has_more = True
        while has_more:
            page = self.ask()
            heard += page["data"]
            has_more = page["has_more"]
        for each in heard:
            if "deleted_at" in each:
                self.syncs.pop(each["id"], None)
            else:
                self.syncs[each["id"]] = each
        return heard


@pytest.fixture
def follower(api: httpx.Client) -> Follower:
    return Follower(api)


@pytest.fixture
def create(api: httpx.Client, sync_body: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    def create(**more: Any) -> dict[str, Any]:
        answer = api.post("/v1/syncs", json=sync_body | more)
        assert answer.status_code == 200, answer.text
        created: dict[str, Any] = answer.json()
        return created

    return create


def ids(heard: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in heard]


def change(database: Database, sync_id: str, **values: object) -> None:
    with database.write() as session:
        session.exec(update(Sync).where(col(Sync.id) == UUID(sync_id)).values(values))


def test_lists_once_and_then_follows(
    api: httpx.Client, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """Every sync is the ordinary object, in the order of the changes; an empty page ends where it began."""
    assert follower.follow() == []
    first, second = create(), create(name="Other")

    assert ids(follower.follow()) == [first["id"], second["id"]]
    assert follower.syncs == {each["id"]: each for each in api.get("/v1/syncs").json()["data"]}
    before = follower.cursor
    assert follower.ask() == {"data": [], "next_cursor": before, "has_more": False}

    renamed = api.patch(f"/v1/syncs/{first['id']}", json={"name": "Renamed"}).json()
    assert follower.follow() == [renamed]
    assert follower.follow() == []
    assert ids(Follower(api).follow()) == [second["id"], first["id"]]


def test_zero_is_the_beginning_too(api: httpx.Client, create: Callable[..., dict[str, Any]]) -> None:
    """The default page holds a hundred."""
    created = create()

    assert ids(api.get("/v1/syncs?changed_since=0").json()["data"]) == [created["id"]]


def test_health_is_heard(
    follower: Follower, create: Callable[..., dict[str, Any]], read: Callable[[], None], upstream: Any
) -> None:
    """A backfill that begins, completes and later fails."""
    upstream.fill("/v1/customers", 3)
    sync_id = create(collection_ids=["stripe:customer"], rate_limit=None)["id"]
    follower.follow()

    read()

    assert ids(follower.follow()) == [sync_id]
    assert follower.syncs[sync_id]["health"]["status"] == "healthy"
    assert follower.syncs[sync_id]["initial_backfill_completed_at"] is not None


def test_a_refused_credential_is_heard(
    follower: Follower, create: Callable[..., dict[str, Any]], read: Callable[[], None], upstream: Any
) -> None:
    """With the reason."""
    sync_id = create(collection_ids=["stripe:customer"], rate_limit=None)["id"]
    follower.follow()
    upstream.interfere = lambda _request: httpx.Response(401)

    read()
    follower.follow()

    assert follower.syncs[sync_id]["health"]["reason"]["code"] == "credential_rejected"


def test_all_columns_are_decided() -> None:
    """A column that somebody adds is either shown, and then its changes are noted, or is not."""
    columns = {column.name for column in Sync.__table__.columns}  # type: ignore[attr-defined]
    shown = {"health_status", "health_reason", "removed_at", *OF_THE_SYNC}

    assert columns - NOT_SHOWN == shown


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_each_shown_column_is_noted(
    database: Database, follower: Follower, create: Callable[..., dict[str, Any]], name: str
) -> None:
    """Whoever changes it, by whatever statement; the same value again is no change."""
    sync_id = create()["id"]
    follower.follow()

    change(database, sync_id, **{name: OTHER_VALUES[name]})
    assert ids(follower.follow()) == [sync_id]

    change(database, sync_id, **{name: OTHER_VALUES[name]})
    assert follower.follow() == []


def test_what_is_not_shown_is_not_noted(
    database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """Trimming is every hour's work of every sync."""
    sync_id = create()["id"]
    follower.follow()

    change(database, sync_id, trimmed_at=utc_now(), keeps_records=True)

    assert follower.follow() == []


def test_a_credential_s_own_changes_are_not_followed(
    api: httpx.Client, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """Only its sync's are; the object then shows the credential as it is."""
    sync = create()
    follower.follow()

    api.patch(f"/v1/credentials/{sync['credential_id']}", json={"metadata": {"a": 1}})
    assert follower.follow() == []

    api.patch(f"/v1/syncs/{sync['id']}", json={"name": "Renamed"})
    assert follower.follow()[0]["credential"]["metadata"] == {"a": 1}


@pytest.mark.parametrize("keep_records", [False, True])
def test_deletions_outlive_the_sync(
    api: httpx.Client,
    database: Database,
    follower: Follower,
    create: Callable[..., dict[str, Any]],
    keep_records: bool,
) -> None:
    """Also once its records, its own row, and even its stream are gone."""
    sync = create()
    follower.follow()

    api.delete(f"/v1/syncs/{sync['id']}", params={"keep_records": keep_records})
    late = Follower(api)
    late.cursor = follower.cursor
    (deleted,) = follower.follow()
    purge(database, utc_now())
    assert api.delete(f"/v1/streams/{sync['stream_id']}").status_code == 200

    assert deleted.pop("deleted_at")
    assert deleted == {
        name: sync[name] for name in ("id", "provider", "stream_id", "external_id", "metadata")
    }
    assert follower.syncs == {}
    assert follower.follow() == []
    assert ids(late.follow()) == [sync["id"]]


def test_a_row_that_vanishes_is_a_deletion(
    api: httpx.Client, database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """No way to delete a sync passes the feed by."""
    sync_id = create()["id"]
    follower.follow()

    with database.write() as session:
        session.execute(text("DELETE FROM sync WHERE id = :id"), {"id": session_id(database, sync_id)})

    (deleted,) = follower.follow()
    assert deleted["id"] == sync_id
    assert deleted["external_id"] == "org_1"
    assert utc_now().isoformat()[:10] == deleted["deleted_at"][:10]


def session_id(database: Database, value: str) -> object:
    """An id as the database itself spells it."""
    return UUID(value).hex if database.is_sqlite else UUID(value)


def test_gone(
    api: httpx.Client, database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """A cursor before a forgotten deletion is 410; one that has heard of it goes on; a new one begins."""
    doomed, kept = create(), create(name="Kept")
    follower.follow()
    behind = follower.cursor
    api.delete(f"/v1/syncs/{doomed['id']}")
    follower.follow()

    purge(database, utc_now(), changes_kept=timedelta(days=7))
    assert api.get("/v1/syncs", params={"changed_since": behind}).status_code == 200
    purge(database, utc_now() + timedelta(days=8), changes_kept=timedelta(days=7))

    gone = api.get("/v1/syncs", params={"changed_since": behind})
    assert gone.status_code == 410
    assert set(gone.json()) == {"summary"}
    assert follower.follow() == []
    assert ids(Follower(api).follow()) == [kept["id"]]


def test_an_empty_beginning_after_all_is_forgotten(
    api: httpx.Client, database: Database, create: Callable[..., dict[str, Any]]
) -> None:
    """The cursor of an empty list is of use, whatever was forgotten before."""
    doomed = create()
    api.delete(f"/v1/syncs/{doomed['id']}")
    purge(database, utc_now() + timedelta(days=8))
    new = Follower(api)

    assert new.follow() == []
    assert new.follow() == []
    created = create()
    assert ids(new.follow()) == [created["id"]]


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        (Position("e", 5), False),
        (Position("e", 4), True),
        (Position("e", 5, uuid4()), True),
        (Position("e", 6, uuid4()), False),
        (Position("e", 9), False),
        (Position("e", 10), True),
        (Position("other", 6), True),
    ],
)
def test_is_lost(after: Position, lost: bool) -> None:
    """Deletions up to 5 are forgotten, and 9 is the latest change."""
    assert is_lost(after, "e", forgotten=5, latest=9) is lost


def test_organisations_do_not_meet(
    api: httpx.Client, other: httpx.Client, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """A cursor says where, the token says whose."""
    create()
    follower.follow()
    theirs = Follower(other)
    theirs.cursor = follower.cursor

    assert theirs.follow() == []
    assert Follower(other).follow() == []


@pytest.mark.parametrize(
    "query",
    [
        *("changed_since=x", "changed_since=AAAA", "changed_since=%ff", f"changed_since={'a' * 300}"),
        f"changed_since={encode(Position('e', -1))}",
        f"changed_since={encode(Position('e', 2**63))}",
        f"changed_since={encode(Position('e', 1))}=",
        *("changed_since=&limit=0", "changed_since=&limit=1001"),
        *("changed_since=&name=a", "changed_since=&provider=stripe", "changed_since=&health.status=ok"),
        *("changed_since=&external_id=a", "changed_since=&stream_id=00000000-0000-4000-8000-000000000000"),
        'changed_since=&metadata={"a":1}',
    ],
)
def test_refused(api: httpx.Client, query: str) -> None:
    """Nonsense is 400, and so is a filter: a sync that no longer matches would be missed."""
    answer = api.get(f"/v1/syncs?{query}")

    assert answer.status_code == 400
    assert set(answer.json()) == {"summary"}


def test_cursor_of_another_life(api: httpx.Client, follower: Follower) -> None:
    """One of another epoch, or beyond all changes, begins again."""
    follower.follow()
    position = decode(follower.cursor)

    for lost in (Position("0" * 16, position.change), Position(position.epoch, 2**62)):
        assert api.get("/v1/syncs", params={"changed_since": encode(lost)}).status_code == 410


def test_without_the_parameter_the_list_is_as_it_was(
    api: httpx.Client, create: Callable[..., dict[str, Any]]
) -> None:
    """So that a client can tell which API it has before it."""
    create()

    assert set(api.get("/v1/syncs?limit=10").json()) == {"data"}


# Below: many syncs, made without the API.


@pytest.fixture
def many(api: httpx.Client, database: Database, create: Callable[..., dict[str, Any]]) -> list[UUID]:
    """Thousands of syncs of one organisation."""
    return fill(database, UUID(create()["id"]), 3_000)


def fill(database: Database, like: UUID, count: int) -> list[UUID]:
    with database.write() as session:
        sync = session.get_one(Sync, like)
        copies = [{**sync.model_dump(), "id": new_id()} for _ in range(count)]
        session.execute(Sync.__table__.insert(), [as_row(each) for each in copies])  # type: ignore[attr-defined]
    return [like, *(each["id"] for each in copies)]


def as_row(values: dict[str, Any]) -> dict[str, Any]:
    return {("metadata" if name == "meta" else name): value for name, value in values.items()}


def test_paged_while_others_change(api: httpx.Client, database: Database, many: list[UUID]) -> None:
    """Who changes on the way comes again later; nobody is missed, and no page has one twice."""
    follower = Follower(api, limit=250)
    over = threading.Event()

    def disturb() -> None:
        number = 0
        while not over.is_set():
            number += 1
            change(database, str(many[number * 7 % len(many)]), name=f"Renamed {number}")

    disturber = threading.Thread(target=disturb)
    disturber.start()
    heard = [ids(follower.ask()["data"]) for _ in range(8)]
    over.set()
    disturber.join()
    for page in heard:
        assert len(set(page)) == len(page)

    rest = follower.follow()
    assert {each for page in heard for each in page} | set(ids(rest)) == {str(each) for each in many}
    names = {each["id"]: each["name"] for each in api.get("/v1/syncs").json()["data"]}
    assert all(names[each["id"]] == each["name"] for each in rest)


def test_a_page_costs_its_rows(database: Database, many: list[UUID]) -> None:
    """One query walks one index, whatever lies before and after; nothing is written."""
    with database.read() as session:
        org_id = session.get_one(Sync, many[0]).org_id
        whole = changes_after(session, org_id, None, 1_000, on_sqlite=database.is_sqlite)
        end = Position(whole.position.epoch, 2**50)

    for after in (whole.position, end):
        statements = statements_of(database, org_id, after)
        assert len(statements) == 2
        for statement, parameters in statements:
            assert statement.lstrip().startswith("SELECT")
            plan = explained(database, statement, parameters)
            assert "ix_sync_change_order" in plan or "sync_feed" in plan, plan
            assert not any(
                bad in plan
                for bad in (
                    "SCAN sync",
                    "Seq Scan on sync ",
                    "Seq Scan on sync_change",
                    "TEMP B-TREE",
                    "Sort",
                )
            )


def statements_of(database: Database, org_id: UUID, after: Position) -> list[tuple[str, Any]]:
    """What a page asks the database."""
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, _m: object) -> None:
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            asked.append((statement, parameters))

    with database.read() as session, ExitStack() as stack:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        stack.callback(event.remove, engine, "before_cursor_execute", note)
        with suppress(PositionLostError):  # a position beyond the end is, which is known after both queries
            changes_after(session, org_id, after, 100, on_sqlite=database.is_sqlite)
    return asked


def explained(database: Database, statement: str, parameters: Any) -> str:
    how = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    with database.read() as session:
        if not database.is_sqlite:
            session.execute(text("SET LOCAL enable_seqscan = off"))
        rows = session.connection().exec_driver_sql(f"{how} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_transactions_that_commit_in_the_other_order(
    api: httpx.Client, database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """What was changed first and committed last is not missed, and nothing after it is shown before."""
    first, second = create()["id"], create(name="Other")["id"]
    follower.follow()

    with Session(database.engine) as slow, slow.begin():
        slow.exec(update(Sync).where(col(Sync.id) == UUID(first)).values(name="slow"))
        change(database, second, name="quick")
        assert follower.follow() == []

    assert ids(follower.follow()) == [first, second]
    assert follower.follow() == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_older_transaction_changes_later(
    database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """It has the lower number although its change of the same sync is the newer one."""
    sync_id, other = create()["id"], create(name="Other")["id"]
    follower.follow()

    with Session(database.engine) as older, older.begin():
        older.exec(update(Sync).where(col(Sync.id) == UUID(other)).values(name="begun"))
        change(database, sync_id, name="newer transaction")
        older.exec(update(Sync).where(col(Sync.id) == UUID(sync_id)).values(name="last word"))
        assert follower.follow() == []

    follower.follow()
    assert follower.syncs[sync_id]["name"] == "last word"


def test_followers_under_concurrent_writers(
    api: httpx.Client, database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """After all writers are done, whoever followed them has what they left."""
    made = fill(database, UUID(create()["id"]), 40)
    over = threading.Event()

    def write(seed: int) -> None:
        for number in range(40):
            with database.write() as session:
                some = sorted({(seed * 31 + number * step) % len(made) for step in (1, 5, 11)})
                for place in some:
                    one = update(Sync).where(col(Sync.id) == made[place])
                    session.exec(one.values(name=f"{seed} {number}"))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]

    def follow() -> None:
        while not over.is_set():
            follower.follow()

    following = threading.Thread(target=follow)
    for each in (following, *writers):
        each.start()
    for each in writers:
        each.join()
    over.set()
    following.join()
    follower.follow()

    listed = api.get("/v1/syncs").json()["data"]
    assert {each["id"]: each["name"] for each in follower.syncs.values()} == {
        each["id"]: each["name"] for each in listed
    }


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_restored_database_numbers_anew(
    api: httpx.Client, database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """On another server transaction ids begin elsewhere: followers start again, and miss nothing there."""
    created = create()
    follower.follow()
    adopt_database(database)
    assert follower.follow() == []

    with database.write() as session:
        session.exec(update(SyncFeed).values(home="elsewhere"))
        session.exec(update(SyncChange).values(change=2**50))
    assert Follower(api).follow() == []
    adopt_database(database)

    assert api.get("/v1/syncs", params={"changed_since": follower.cursor}).status_code == 410
    assert created["id"] in ids(Follower(api).follow())


def test_after_a_backup_all_begin_again(
    api: httpx.Client, database: Database, follower: Follower, create: Callable[..., dict[str, Any]]
) -> None:
    """An operator who has put back an older state says so: no trigger notes what that has undone."""
    created = create()
    follower.follow()

    restart_followers(database)

    assert api.get("/v1/syncs", params={"changed_since": follower.cursor}).status_code == 410
    assert ids(Follower(api).follow()) == [created["id"]]
