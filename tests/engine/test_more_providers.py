"""Readings of each further provider through the real reader, against fakes that follow their references.

What is decided here does not depend on the database: one kind of it is enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import fakeredis
import httpx
import pytest
from sqlmodel import col, select, update

from engine.backfill.pace import Pace
from engine.backfill.reader import Reader
from engine.providers.catalogue import Catalogue
from engine.sealing import Safe
from engine.settings import Settings
from engine.tables import Progress, ReadingKind, Record
from foundation.database import Database, utc_now
from tests.engine.further_cases import CASES, Case, Held

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")

FAST = {"allowed_requests": 1000, "interval": 1, "max_concurrent_requests": 0}


@pytest.fixture(params=CASES, ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


@dataclass
class Synced:
    """A sync of everything that a case has."""

    api: httpx.Client
    database: Database
    reader: Reader
    path: str
    collections: list[str] = field(default_factory=list)

    @property
    def id(self) -> UUID:
        return UUID(self.path.rpartition("/")[2])

    def read(self, kind: ReadingKind) -> None:
        """As if the time of all readings of a kind had come."""
        of_kind = (col(Progress.sync_id) == self.id, col(Progress.kind) == kind)
        with self.database.write() as session:
            session.exec(update(Progress).where(*of_kind).values(due_at=utc_now(), leased_until=None))
            left = list(session.exec(select(Progress.id).where(*of_kind)))
        while left:
            left = list(self.reader.read(left))

    def held(self) -> Held:
        with self.database.read() as session:
            alive = select(Record).where(Record.sync_id == self.id, col(Record.deleted).is_(False))
            records = session.exec(alive).all()
        return {
            name: {each.upstream_id: each.data for each in records if each.collection_id == name}
            for name in self.collections
        }


@pytest.fixture
def synced(
    api: httpx.Client,
    database: Database,
    settings: Settings,
    catalogue: Catalogue,
    stream: str,
    upstream: Any,
    case: Case,
) -> Iterator[Synced]:
    upstream.interfere = case.fake
    provider = case.properties["kind"].rpartition("_")[0]
    collections = list(case.upstream())
    body = {
        "provider": provider,
        "stream_id": stream,
        "name": "Choam",
        "collection_ids": collections,
        "rate_limit": FAST,
        "credential": {"properties": case.properties},
    }
    answer = api.post("/v1/syncs", json=body)
    assert answer.status_code == 200, answer.text
    with httpx.Client(transport=httpx.MockTransport(case.fake)) as client:
        reader = Reader(
            database=database,
            safe=Safe(settings.vault()),
            catalogue=catalogue,
            pace=Pace(fakeredis.FakeRedis()),
            client=client,
            own_apps={provider: case.app} if case.app else {},
        )
        yield Synced(api, database, reader, f"/v1/syncs/{answer.json()['id']}", collections)


def test_everything_and_what_changes(synced: Synced, case: Case) -> None:
    """A reading holds what is upstream, record by record; the next look sees what has happened since.

    A token that ends in between costs a renewal and nothing else, whatever way the provider says it.
    """
    synced.read(ReadingKind.PASS)

    sync = synced.api.get(synced.path).json()
    assert sync["health"]["status"] == "healthy", sync["health"]
    assert sync["initial_backfill_completed_at"] is not None
    assert synced.held() == case.upstream()

    case.change()
    assert synced.held() != case.upstream()
    issued = end_token(case.fake)
    synced.read(case.told_by)

    assert synced.held() == case.upstream()
    assert synced.api.get(synced.path).json()["health"]["status"] == "healthy"
    if issued is not None:
        assert case.fake.tokens.issued == issued + 1


def end_token(fake: Any) -> int | None:
    """End the access token, unless it is a key; gives how many tokens were issued until then."""
    if not hasattr(fake, "tokens"):
        return None
    fake.tokens.expire()
    return int(fake.tokens.issued)
