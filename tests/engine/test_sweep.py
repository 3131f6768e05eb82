"""The sweep offers what is due where the queue has room, and nobody adds to a long one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from kombu.exceptions import OperationalError

from engine.app import create_celery
from engine.backfill.reader import Reader
from engine.crowd import Crowd
from engine.hints import BACKFILL_QUEUE, READ, SWEEP, new_celery
from engine.sweep import find_due
from engine.tables import Progress
from foundation.backlog import BACKLOG_LIMIT
from foundation.database import Database, utc_now
from foundation.queue import Role

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def due(api: httpx.Client, sync_body: dict[str, Any], hints: Any, upstream: Any, database: Database) -> UUID:
    """A reading of more than a page that is due, and of which the message was lost."""
    upstream.fill("/v1/customers", 250)
    body = sync_body | {"collection_ids": ["stripe:customer"], "rate_limit": None}
    assert api.post("/v1/syncs", json=body).status_code == 200
    progress_id: UUID = hints.of(READ)[-1]
    with database.write() as session:
        session.get_one(Progress, progress_id).hinted_until = None
    return progress_id


def test_a_long_queue_gets_no_more(
    due: UUID, reader: Reader, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There rows wait in the database, in fair order, until there is room again."""
    published: list[UUID] = []

    def publish(_app: object, _task: str, ids: Sequence[UUID]) -> None:
        published.extend(ids)

    monkeypatch.setattr("engine.app.publish", publish)

    for is_crowded in (True, False):
        create_celery(NOWHERE, replace(reader, is_crowded=lambda told=is_crowded: told)).tasks[SWEEP]()
        assert (due in published) is not is_crowded


@pytest.mark.parametrize("slice_s", [0.0, -1.0])
def test_in_a_crowd_nobody_hands_on_what_is_not_done(
    due: UUID, reader: Reader, database: Database, slice_s: float
) -> None:
    """Neither what was begun nor what was not: the sweep offers what has waited longest."""
    hasty = replace(reader, slice_s=slice_s)

    assert list(replace(hasty, is_crowded=lambda: True).read([due])) == []
    assert due in find_due(database, utc_now())
    assert list(hasty.read([due])) == [due]


def test_a_crowd_is_a_long_queue_of_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for once in a while only; without a broker nobody crowds."""
    lengths = iter([BACKLOG_LIMIT, BACKLOG_LIMIT - 1])

    def backlog(_app: object, _queues: object) -> dict[str, int]:
        try:
            return {BACKFILL_QUEUE: next(lengths)}
        except StopIteration:
            raise OperationalError from None

    monkeypatch.setattr("engine.crowd.backlog", backlog)
    app = new_celery(NOWHERE, Role.PUBLISHER)
    crowd = Crowd(app)

    assert [crowd(), crowd(), Crowd(app)(), Crowd(app)()] == [True, True, False, False]
