"""What the periodic erasing must not do, whatever else happens at that moment."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlmodel import select

from engine.backfill.append import Arrival, Target, append, find_known
from engine.providers.records import UpstreamRecord
from engine.purge import erase_removed, purge, trim_old
from engine.tables import Record, Sync
from foundation.database import Database, new_id, utc_now

LONG_AGO = timedelta(days=90)
RECORDS = 7


def test_trimming_spares_what_a_page_updates(
    api: httpx.Client, database: Database, stream: str, sync_body: dict[str, Any]
) -> None:
    """A record that turns young between the look for old ones and their deletion is not lost."""
    sync_id = UUID(api.post("/v1/syncs", json=sync_body | {"max_age_days": 30}).json()["id"])
    target = Target(UUID(stream), sync_id, "stripe:customer", new_id(), is_pass=True)
    found, trimmed = threading.Event(), threading.Event()

    def bring(version: int, updated_at: datetime) -> None:
        """As a page does: the sync is locked first, then what is known of its objects is looked up."""
        with database.write() as session:
            session.exec(select(Sync).where(Sync.id == sync_id).with_for_update(key_share=True)).one()
            known = find_known(session, target, ["cus_0"])
            found.set()
            trimmed.wait(0.2 if known else 0)
            record = UpstreamRecord("cus_0", {"version": version}, str(version), None, updated_at)
            append(session, target, [Arrival(record, utc_now())], known, utc_now())

    bring(1, utc_now() - LONG_AGO)
    found.clear()
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(bring, 2, utc_now())
        found.wait()
        trim_old(database, utc_now())
        trimmed.set()
        page.result()

    with database.read() as session:
        assert session.exec(select(Record.data).where(Record.sync_id == sync_id)).all() == [{"version": 2}]


@pytest.fixture
def removed(api: httpx.Client, database: Database, stream: str, sync_body: dict[str, Any]) -> Target:
    """A removed sync with a few records."""
    sync_id = UUID(api.post("/v1/syncs", json=sync_body).json()["id"])
    target = Target(UUID(stream), sync_id, "stripe:customer", new_id(), is_pass=True)
    records = [UpstreamRecord(f"cus_{each}", {}, "", None, None) for each in range(RECORDS)]
    with database.write() as session:
        append(session, target, [Arrival(record, utc_now()) for record in records], {}, utc_now())
    api.delete(f"/v1/syncs/{sync_id}")
    return target


def left_of(target: Target, database: Database) -> tuple[bool, int]:
    """Whether the sync is there still, and how many of its records."""
    with database.read() as session:
        records = session.exec(select(Record.id).where(Record.sync_id == target.sync_id)).all()
        return session.get(Sync, target.sync_id) is not None, len(records)


def test_two_erasers_share_the_work(
    removed: Target, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another is erasing is left to it, and no sync goes while it has records: they would go at once."""
    monkeypatch.setattr("engine.purge.RECORDS_AT_ONCE", 2)
    some = select(Record.id).where(Record.sync_id == removed.sync_id).order_by(Record.upstream_id).limit(2)

    with database.read() as other:
        is_locking = not database.is_sqlite  # there writers take turns
        other.exec(some.with_for_update() if is_locking else some).all()
        erase_removed(database, [removed.sync_id])
        assert left_of(removed, database) == ((True, 2) if is_locking else (False, 0))

    erase_removed(database, [removed.sync_id])
    assert left_of(removed, database) == (False, 0)


def test_purges_come_one_at_a_time_and_end(removed: Target, database: Database) -> None:
    """One that finds another under way has nothing to do; one whose time is over says that there is more."""
    only = [removed.sync_id]

    with database.alone("purge"):
        assert purge(database, utc_now(), only)
    assert left_of(removed, database) == (True, RECORDS)

    assert not purge(database, utc_now(), only, for_s=0)
    assert left_of(removed, database) == (True, RECORDS)

    assert purge(database, utc_now(), only)
    assert left_of(removed, database) == (False, 0)
