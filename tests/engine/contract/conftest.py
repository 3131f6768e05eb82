"""What tests of syncs, their records and their consumers begin with."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import col, update

from engine.backfill.reader import Reader
from engine.hints import READ
from engine.tables import Record
from foundation.database import Database, utc_now


@pytest.fixture
def read(reader: Reader, hints: Any) -> Callable[[], None]:
    """Do what workers were told to do in the meantime, to the end."""
    done = 0

    def read() -> None:
        nonlocal done
        told, done = hints.of(READ)[done:], len(hints.of(READ))
        while told:
            told = reader.read(told)

    return read


@pytest.fixture
def a_minute_later(database: Database) -> Callable[[], None]:
    """As if what the streams hold had been read a minute ago; what is fresher is held to be a race."""

    def a_minute_later() -> None:
        ago = utc_now() - timedelta(minutes=1)
        with database.write() as session:
            seen = update(Record).where(col(Record.as_of) > ago)
            session.exec(seen.values(as_of=ago, appended_at=ago))

    return a_minute_later


@pytest.fixture
def fill(api: httpx.Client, upstream: Any, read: Callable[[], None], sync_body: dict[str, Any]) -> Any:
    """Backfill so many customers into the stream and give its sync."""

    def fill(count: int) -> dict[str, Any]:
        upstream.fill("/v1/customers", count)
        body = sync_body | {"collection_ids": ["stripe:customer"], "rate_limit": None}
        sync: dict[str, Any] = api.post("/v1/syncs", json=body).json()
        read()
        return sync

    return fill
