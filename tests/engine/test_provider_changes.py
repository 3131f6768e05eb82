"""Changes of each provider through the real reader: what moved gets a new place, and nothing else does."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlmodel import col, select, update

from engine.providers.catalogue import Catalogue
from engine.tables import Progress, ReadingKind, Record
from foundation.database import Database, utc_now
from tests.engine.provider_cases import (
    Case,
    KilledError,
    github,
    hubspot,
    look,
    make_due,
    records_of,
    salesforce,
    shopify,
)

WATCHED = {
    "hubspot": ["hubspot:contact", "hubspot:company"],
    "github": ["github:issue", "github:pull_request", "github:commit"],
    "salesforce": ["salesforce:contact"],
    "shopify": ["shopify:product", "shopify:order"],
}


@pytest.fixture(params=[hubspot, github, salesforce, shopify], ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param(many=20)
    return made


def age(database: Database, path: str) -> None:
    """As if everything in the streams had been seen a minute ago."""
    ago = utc_now() - timedelta(minutes=1)
    with database.write() as session:
        of_sync = update(Record).where(col(Record.sync_id) == UUID(path.rsplit("/", 1)[1]))
        session.exec(of_sync.values(as_of=ago, appended_at=ago))


def moved(before: dict[str, Record], after: dict[str, Record]) -> set[str]:
    return {
        name
        for name, each in after.items()
        if name not in before or each.updated_idx != before[name].updated_idx
    }


def test_changes_are_seen(database: Database, worker: Any, start: Any, case: Case) -> None:
    """Inserts, updates and deletes are appended once, also those of the second that was seen last."""
    assert case.change is not None
    path, ids = start(case, *WATCHED[case.provider])
    reader = worker(case)
    reader.read(ids)
    age(database, path)
    look(database, reader, path)
    before = records_of(database, path)

    change = case.change(case.fake, utc_now().replace(microsecond=0))
    look(database, reader, path)
    after = records_of(database, path)
    look(database, reader, path)

    assert moved(before, after) == change.live | change.gone
    assert {name for name, each in after.items() if each.deleted} == change.gone
    assert moved(after, records_of(database, path)) == set()


def test_a_look_asks_where_something_may_have_changed(database: Database, worker: Any, start: Any) -> None:
    """One page for each parent, and none for a parent that was not touched."""
    case = github(many=20)
    path, ids = start(case)
    reader = worker(case)
    reader.read(ids)
    case.fake.requests.clear()

    look(database, reader, path)

    asked = [request.url.path.removeprefix("/repos/choam/") for request in case.fake.requests]
    lists = [f"{name}/{kind}" for name in ("spice", "water", "empty") for kind in ("issues", "pulls")]
    assert sorted(asked) == sorted([*lists, *["/installation/repositories"] * 3])


def test_killed_while_looking(database: Database, worker: Any, start: Any, case: Case) -> None:
    """A look whose worker died goes on with the next, and brings the same."""
    assert case.change is not None
    path, ids = start(case, *WATCHED[case.provider])
    worker(case).read(ids)
    age(database, path)
    before = records_of(database, path)
    change = case.change(case.fake, utc_now())
    survived = [0]

    def fragile(request: httpx.Request) -> httpx.Response:
        survived[0] += 1
        if survived[0] in {2, 5, 9}:
            raise KilledError
        answer: httpx.Response = case.fake(request)
        return answer

    dying = worker(Case(fragile, case.properties, case.expected, case.app))
    for _ in range(4):
        with suppress(KilledError):
            look(database, dying, path)

    assert moved(before, records_of(database, path)) == change.live | change.gone


def test_a_look_that_cannot_go_on_waits(database: Database, worker: Any, start: Any) -> None:
    """A second page that is always refused is trouble to be told, and not asked for again at once."""
    case = hubspot()
    assert case.change is not None
    path, ids = start(case, "hubspot:contact")
    worker(case).read(ids)
    age(database, path)
    before = records_of(database, path)
    case.change(case.fake, utc_now())

    def refuse(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and b'"value":"1204"' in request.content:
            return httpx.Response(400, json={})
        answer: httpx.Response = case.fake(request)
        return answer

    look(database, worker(Case(refuse, case.properties, case.expected, case.app)), path)

    (waiting,) = looks(database, path)
    assert waiting.failures == 1
    assert waiting.due_at is not None
    assert (waiting.due_at - utc_now()).total_seconds() > 20
    assert len(moved(before, records_of(database, path))) == 200
    look(database, worker(case), path)
    assert len(moved(before, records_of(database, path))) == 246


def test_deletes_that_may_not_be_listed(
    api: httpx.Client, database: Database, worker: Any, start: Any
) -> None:
    """Without the permission to read the list of what is gone, changes are seen all the same."""
    case = shopify(many=20)
    assert case.change is not None
    path, ids = start(case, "shopify:product")
    worker(case).read(ids)
    age(database, path)
    case.change(case.fake, utc_now())

    def scoped(request: httpx.Request) -> httpx.Response:
        answer: httpx.Response = case.fake(request)
        return httpx.Response(403, json={}) if "events" in request.url.path else answer

    look(database, worker(Case(scoped, case.properties, case.expected)), path)

    assert "product/9000" in records_of(database, path)
    assert not records_of(database, path)["product/18"].deleted
    assert api.get(path).json()["health"]["status"] == "healthy"


def test_what_numbered_pages_skipped_is_not_gone(database: Database, worker: Any, start: Any) -> None:
    """A delete moves what comes after it to a page that has been read: only what two passes miss is gone."""
    case = github()
    path, ids = start(case, "github:pull_request")
    reader, pulls = worker(case), case.fake.lists["/repos/choam/spice/pulls"]
    reader.read(ids)
    age(database, path)

    def delete_behind(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("page") == "2" and len(pulls) == 120:
            pulls.pop(3)
        answer: httpx.Response = case.fake(request)
        return answer

    make_due(database, *ids)
    worker(Case(delete_behind, case.properties, case.expected, case.app)).read(ids)
    assert len(pulls) == 119
    assert not any(each.deleted for each in records_of(database, path).values())

    for _ in range(2):  # due at once; the record that is gone was still met by the first of these passes
        age(database, path)
        reader.read(ids)
    gone = [name for name, each in records_of(database, path).items() if each.deleted]
    assert gone == ["pull_request/10003"]
    with database.read() as session:
        due_at = session.get_one(Progress, ids[0]).due_at
    assert due_at is not None
    assert due_at > utc_now() + timedelta(hours=23)


def looks(database: Database, path: str) -> list[Progress]:
    of_sync = select(Progress).where(Progress.sync_id == UUID(path.rsplit("/", 1)[1]))
    with database.read() as session:
        return list(session.exec(of_sync.where(Progress.kind == ReadingKind.SINCE)).all())


def test_a_release_that_tells_more_of_a_provider(database: Database, worker: Any, start: Any) -> None:
    """Syncs follow when a provider's file comes to tell of changes, and when it does so no more."""
    case = shopify(many=20)
    path, ids = start(case, "shopify:order")
    with database.write() as session:
        for each in looks(database, path):
            session.delete(each)  # as if the sync had been created by a release that knew of no changes
    reader = worker(case)
    reader.read(ids)
    (look_added,) = looks(database, path)
    assert look_added.due_at is not None

    known = reader.catalogue["shopify"]
    unaware = known.collections["order"].model_copy(update={"changes": None})
    before = known.model_copy(update={"collections": {**known.collections, "order": unaware}})
    look(database, replace(reader, catalogue=Catalogue([before])), path)
    assert looks(database, path) == []
