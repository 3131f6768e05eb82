"""An upstream account that tells its changes, and a sync that watches it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlmodel import col, select, update

from engine.backfill.reader import Reader
from engine.changes.position import Position
from engine.tables import Progress, ReadingKind, Record
from foundation.database import Database, utc_now

CUSTOMERS, INVOICES, EVENTS = "/v1/customers", "/v1/invoices", "/v1/events"


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing of ours may catch it."""


class Account:
    """An upstream account that tells its changes as Stripe does, newest first."""

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.upstream.interfere = self.answer
        self.trouble: Callable[[httpx.Request], httpx.Response | None] = lambda _request: None
        self.number = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.upstream.objects.setdefault(EVENTS, [])
        return found

    def put(
        self, upstream_id: str, *, at: datetime | None = None, path: str = CUSTOMERS, **values: Any
    ) -> None:
        """Create or change an object and tell it."""
        objects = self.upstream.objects.setdefault(path, [])
        before = next((each for each in objects if each["id"] == upstream_id), {"created": 1_700_000_000})
        changed = before | {"id": upstream_id, "object": path[4:-1]} | values
        objects[:] = [changed, *(each for each in objects if each["id"] != upstream_id)]
        self.tell("updated", changed, at)

    def drop(self, upstream_id: str, *, at: datetime | None = None, is_told: bool = True) -> None:
        """Delete a customer, telling it or not."""
        objects = self.upstream.objects[CUSTOMERS]
        gone = next(each for each in objects if each["id"] == upstream_id)
        objects.remove(gone)
        if is_told:
            self.tell("deleted", gone | {"object": "customer"}, at)

    def tell(self, what: str, about: dict[str, Any], at: datetime | None = None) -> None:
        self.number += 1
        created = int((at or utc_now()).timestamp())
        event = {"id": f"evt_{self.number}", "type": f"{about['object']}.{what}", "created": created}
        self.events.insert(0, event | {"data": {"object": dict(about)}})

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if (trouble := self.trouble(request)) is not None:
            return trouble
        path, _, name = request.url.path.rpartition("/")
        if path in self.upstream.objects:
            found = [each for each in self.upstream.objects[path] if each["id"] == name]
            return httpx.Response(200, json=found[0]) if found else httpx.Response(404)
        if request.url.path == EVENTS and (since := request.url.params.get("created[gte]")):
            recent = [each for each in self.events if each["created"] >= int(since)]
            after, limit = request.url.params.get("starting_after"), int(request.url.params["limit"])
            start = [each["id"] for each in recent].index(after) + 1 if after else 0
            more = start + limit < len(recent)
            return httpx.Response(200, json={"data": recent[start : start + limit], "has_more": more})
        return None


class Watched:
    """A sync whose backfill is done, and what a worker does for it."""

    def __init__(self, api: httpx.Client, database: Database, reader: Reader, body: dict[str, Any]) -> None:
        self.api, self.database, self.reader = api, database, reader
        answer = api.post("/v1/syncs", json=body)
        assert answer.status_code == 200, answer.text
        self.id = UUID(answer.json()["id"])
        self.path = f"/v1/syncs/{self.id}"

    def readings(self, kind: ReadingKind) -> list[Progress]:
        with self.database.read() as session:
            statement = select(Progress).where(Progress.sync_id == self.id, Progress.kind == kind)
            return list(session.exec(statement.order_by(col(Progress.collection_id))))

    def read(self, kind: ReadingKind) -> None:
        """As if the time of all readings of a kind had come."""
        ids = [each.id for each in self.readings(kind)]
        with self.database.write() as session:
            due = update(Progress).where(col(Progress.id).in_(ids))
            session.exec(due.values(due_at=utc_now(), leased_until=None))
        while ids:
            ids = list(self.reader.read(ids))

    def backfill(self) -> None:
        self.read(ReadingKind.PASS)

    def look(self) -> None:
        self.read(ReadingKind.EVENTS)

    def set_back(self, by: timedelta, kind: ReadingKind = ReadingKind.EVENTS) -> None:
        """As if the last look had been so long ago."""
        before = utc_now() - by
        stored = Position(since=before).stored()
        with self.database.write() as session:
            of_kind = update(Progress).where(col(Progress.sync_id) == self.id, col(Progress.kind) == kind)
            session.exec(of_kind.values(position=stored, checked_at=before, created_at=before))

    def records(self) -> dict[str, Record]:
        with self.database.read() as session:
            found = session.exec(select(Record).where(Record.sync_id == self.id)).all()
        return {each.upstream_id: each for each in found}

    def age(self) -> None:
        """As if everything in the stream had been seen a minute ago."""
        with self.database.write() as session:
            seen = update(Record).where(col(Record.sync_id) == self.id)
            ago = utc_now() - timedelta(minutes=1)
            session.exec(seen.values(as_of=ago, appended_at=ago))

    def alive(self) -> dict[str, Any]:
        return {name: each.data for name, each in self.records().items() if not each.deleted}
