"""What the periodic erasing must not do, whatever else happens at that moment."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlmodel import select

from engine.backfill.append import Arrival, Target, append, find_known
from engine.providers.records import UpstreamRecord
from engine.sweep import trim_old
from engine.tables import Record, Sync
from foundation.database import Database, new_id, utc_now

LONG_AGO = timedelta(days=90)


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
