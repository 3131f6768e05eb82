"""Ready connections in bulk: their syncs at the Management API server, and their rows.

`_rows` is the one place of the benchmarks that knows the worker's tables.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import aiohttp

from foundation.database import Database, utc_now
from foundation.migrations import upgrade
from models import MIGRATIONS, State
from tests.support.rows import a_connection, a_tenant, a_work

T = TypeVar("T")
PER_REQUEST: Final = 1_000
PER_TRANSACTION: Final = 5_000
PACE_S: Final = 300.0
STREAM: Final = "customers"
COLLECTIONS: Final = [
    f"stripe:{name}" for name in ("customer", "product", "price", "subscription", "invoice", "charge")
]


@dataclass(slots=True)
class Watched:
    """One connection, on both sides."""

    number: int
    connection_id: UUID
    sync_id: str
    credential_id: str
    stream_id: str = ""

    @property
    def external_id(self) -> str:
        return f"org_{self.number}"

    @property
    def name(self) -> str:
        return f"Customer {self.number}"


async def fill_server(http: aiohttp.ClientSession, count: int) -> list[Watched]:
    """Give the server as many healthy syncs, and return what the rows must say of them."""
    watched: list[Watched] = []
    for numbers in _parts(range(count), PER_REQUEST):
        part = [Watched(number, uuid4(), str(uuid4()), str(uuid4())) for number in numbers]
        body = {"stream": STREAM, "syncs": [_item(each) for each in part]}
        async with http.post("/_double/fill", json=body) as answer:
            stream_id = (await answer.json())["stream_id"]
        for each in part:
            each.stream_id = stream_id
        watched += part
    return watched


def _item(each: Watched) -> dict[str, object]:
    return {
        "id": each.sync_id,
        "credential_id": each.credential_id,
        "name": each.name,
        "collection_ids": COLLECTIONS,
        "metadata": {"gangway_connection_id": str(each.connection_id)},
        "external_id": each.external_id,
    }


def fill_database(url: str, watched: Sequence[Watched]) -> None:
    """Make the schema and a row of every kind that a ready connection has."""
    database = Database(url)
    upgrade(database, MIGRATIONS)
    for part in _parts(watched, PER_TRANSACTION):
        rows = [_rows(each) for each in part]
        with database.write() as session:
            for kind in zip(*rows, strict=True):  # what others refer to comes first
                session.add_all(kind)
                session.flush()
    database.dispose()


def _rows(each: Watched) -> Sequence[Any]:
    """The rows of one customer that has been ready for a while; looked at next within the pace."""
    now = utc_now()
    tenant = a_tenant(external_id=each.external_id, name=each.name)
    connection = a_connection(
        tenant,
        id=each.connection_id,
        state=State.READY,
        slot="default",
        remote_credential_id=each.credential_id,
        remote_sync_id=each.sync_id,
        remote_stream_id=each.stream_id,
        health="healthy",
        initial_backfill_completed_at=now,
        ready_at=now,
    )
    due_at = now + timedelta(seconds=random.uniform(0, PACE_S))
    return tenant, connection, a_work(connection, due_at=due_at)


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
