"""The limits of a sync as the provider sees them: three workers read, over HTTP and with a real Redis."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from engine.backfill.fetch import TIMEOUT
from engine.backfill.pace import Pace
from engine.backfill.reader import Reader
from engine.clients import new_client
from engine.hints import READ
from engine.providers.catalogue import load_catalogue
from engine.settings import ProviderOverrides
from engine.tables import Progress
from foundation.database import Database
from tests.e2e.arrivals import most_in_a_window
from tests.e2e.harness import Machine, Redis
from tests.e2e.peers import BulkStripe

COLLECTIONS = ("stripe:charge", "stripe:invoice", "stripe:product")
PAGES = 8
AT_ONCE = {"sk_test_of_one": 0, "sk_test_of_another": 1}
"""How many requests at once a key's sync may have; as many as it likes where that is 0."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def stripe(machine: Machine) -> BulkStripe:
    """A provider that counts, and takes 10 ms to answer."""
    return BulkStripe(machine, records=100 * PAGES, latency_ms=10).start()


@pytest.fixture
def workers(reader: Reader, machine: Machine, stripe: BulkStripe) -> Iterator[list[Reader]]:
    """Three that read from it, in short slices, so that every reading wanders from one to the other."""
    broker_url = Redis(machine).start().url
    catalogue = load_catalogue({"stripe": ProviderOverrides(base_url=stripe.url)})
    with ExitStack() as stack:
        yield [
            replace(
                reader,
                catalogue=catalogue,
                pace=Pace.on_redis(broker_url),
                client=stack.enter_context(new_client(connections=4, timeout=TIMEOUT)),
                slice_s=0.3,
            )
            for _ in range(3)
        ]


def read_to_the_end(workers: list[Reader], database: Database, reading_id: UUID) -> None:
    for worker in cycle(workers):
        later_s = worker.read([reading_id]).get(reading_id, 0.01)
        with database.read() as session:
            if session.get_one(Progress, reading_id).done_at is not None:
                return
        time.sleep(later_s)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_limit_is_broken(
    api: httpx.Client,
    database: Database,
    workers: list[Reader],
    stripe: BulkStripe,
    sync_body: dict[str, Any],
    hints: Any,
    upstream: Any,
) -> None:
    """Two syncs of three collections: never more than ten requests of either in any second, nor two at once
    of the one that does not want that."""
    upstream.account = None  # who is asked whose the credentials are is not who counts here
    for key, concurrent in AT_ONCE.items():
        limit = {"allowed_requests": 10, "interval": 1, "max_concurrent_requests": concurrent}
        credential = {"properties": {"kind": "stripe_key", "secret": key}}
        body = sync_body | {"rate_limit": limit, "collection_ids": COLLECTIONS, "credential": credential}
        assert api.post("/v1/syncs", json=body).status_code == 200
    readings = hints.of(READ)

    with ThreadPoolExecutor(len(readings)) as pool:
        list(pool.map(lambda each: read_to_the_end(workers, database, each), readings))

    arrivals, under_way = stripe.requests(), stripe.most_under_way()
    free, single = (stripe.account(key).get("/v1/account").json()["id"] for key in AT_ONCE)
    assert [len(moments) for moments in arrivals.values()] == [len(COLLECTIONS) * PAGES] * 2
    assert max(most_in_a_window(moments, 1) for moments in arrivals.values()) <= 10
    assert under_way[free] <= len(COLLECTIONS)
    assert under_way[single] == 1
