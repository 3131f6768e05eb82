"""The steps of a reading: each is one request at most and one transaction, and says where the next begins."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import httpx
import structlog
from sqlmodel import Session

from engine.backfill.claim import Claim
from engine.backfill.fetch import Access, FetchError, get, understood
from engine.backfill.outcome import record_page
from engine.backfill.pace import Pace
from engine.backfill.report import Report
from engine.backfill.retire import Unmet, find_unmet, retire
from engine.changes.feed import events_request, object_request, read_events
from engine.changes.look import NOTHING, is_sweep, onward, place
from engine.changes.position import Ask, Position
from engine.changes.record import give_up_asking, record_changed, record_events, record_object
from engine.changes.rhythm import Rhythm
from engine.health import TroubleCode
from engine.providers.answer import Answer
from engine.providers.catalogue import Provider
from engine.providers.changes import EventFeed, UpdatedSince
from engine.providers.records import Page, UpstreamRecord, gone, read_page, read_record
from engine.providers.walk import Request, may_be_skipped, parent_at, request
from engine.syncs import stop_watching
from engine.tables import ReadingKind
from engine.transactions import retrying
from foundation.database import Database, utc_now

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Steps:
    """What one reading takes its steps with."""

    database: Database
    provider: Provider
    client: httpx.Client
    pace: Pace
    rhythm: Rhythm
    report: Report

    def step(self, taken: Claim, access: Access) -> Claim | None:
        """Make the next request and store what it brings; nothing when there is no more to do now."""
        if not taken.needs_request:
            return self._retire(taken)
        asked_at = utc_now()
        if taken.kind == ReadingKind.PASS:
            return self._page(taken, access, asked_at)
        match self.provider.changes_of(taken.collection_id):
            case UpdatedSince() as changes:
                return self._changed(taken, access, changes, asked_at)
            case EventFeed() as feed if ask := Position.of(taken.position).next_ask:
                return self._object(taken, access, feed, ask, asked_at)
            case EventFeed() as feed:
                return self._events(taken, access, feed, asked_at)
            case None:
                return self._write(lambda session: stop_watching(session, taken.progress_id))

    def _retire(self, taken: Claim) -> Claim | None:
        """Compare some of what the stream holds with the pass that has just read everything."""
        now = utc_now()
        tells_nothing = taken.is_partial or self.provider.get(taken.collection_id).forgets
        unmet = Unmet([], None) if tells_nothing else find_unmet(self.database, taken, self.provider, now)
        return self._write(
            lambda session: retire(session, taken, unmet, now, rhythm=self.rhythm, provider=self.provider)
        )

    def _page(self, taken: Claim, access: Access, asked_at: datetime) -> Claim | None:
        page = self._read(taken, self.provider, access)
        self.report.note_page(taken.collection_id, len(page.records))
        return self._write(
            lambda session: record_page(
                session, taken, page, utc_now(), asked_at=asked_at, provider=self.provider
            )
        )

    def _changed(
        self, taken: Claim, access: Access, changes: UpdatedSince, asked_at: datetime
    ) -> Claim | None:
        position = Position.of(taken.position)
        narrowed, cursor = place(self.provider, taken.collection_id, changes, position, taken.cursor)
        try:
            found = self._read(replace(taken, cursor=cursor), narrowed, access)
        except FetchError as exc:
            if not is_sweep(taken.cursor) or exc.failure.code is not TroubleCode.COLLECTION_FAILED:
                raise
            log.warning("sweep.refused", message=exc.failure.message)
            found = NOTHING  # whole passes find what is gone, only later
        page = onward(changes, position, taken.cursor, found, asked_at)
        self.report.note_page(taken.collection_id, len(found.records))
        return self._write(
            lambda session: record_changed(
                session, taken, page, utc_now(), asked_at=asked_at, rhythm=self.rhythm
            )
        )

    def _events(self, taken: Claim, access: Access, feed: EventFeed, asked_at: datetime) -> Claim | None:
        since = Position.of(taken.position).since
        wanted = events_request(self.provider, feed, since, taken.cursor)
        answer = self._ask(taken, "events", access, wanted)
        page = understood(
            self.provider, lambda: read_events(self.provider, feed, taken.wanted, answer, taken.cursor)
        )
        self.report.note_page(taken.collection_id, len(page.touches))
        retention = timedelta(days=feed.retention_days)
        return self._write(
            lambda session: record_events(
                session, taken, page, utc_now(), asked_at=asked_at, retention=retention, rhythm=self.rhythm
            )
        )

    def _object(
        self, taken: Claim, access: Access, feed: EventFeed, ask: Ask, asked_at: datetime
    ) -> Claim | None:
        try:
            found = self._find(taken, access, feed, ask)
        except FetchError as exc:
            if exc.failure.code is not TroubleCode.COLLECTION_FAILED:
                raise
            return self._write(
                lambda session: give_up_asking(session, taken, ask, utc_now(), rhythm=self.rhythm)
            )
        self.report.note_page(ask.collection_id, 1)
        return self._write(
            lambda session: record_object(
                session, taken, ask, found, utc_now(), asked_at=asked_at, rhythm=self.rhythm
            )
        )

    def _find(self, taken: Claim, access: Access, feed: EventFeed, ask: Ask) -> UpstreamRecord:
        wanted = object_request(self.provider, feed, ask.collection_id, ask.upstream_id)
        answer = self._ask(taken, ask.collection_id, access, wanted)
        paths = self.provider.get(ask.collection_id).record
        found = (
            gone(ask.upstream_id)
            if answer.is_missing
            else understood(self.provider, lambda: read_record(paths, answer.payload))
        )
        return replace(found, updated_at=found.updated_at or ask.touched_at)

    def _read(self, taken: Claim, provider: Provider, access: Access) -> Page:
        """The page of the claim's collection at its cursor; one that a single parent lacks is empty."""
        wanted, refusal = request(provider, taken.collection_id, taken.cursor), None
        try:
            answer = self._ask(taken, taken.collection_id, access, wanted)
        except FetchError as exc:
            collection = provider.get(taken.collection_id)
            is_of_all = exc.failure.code is not TroubleCode.COLLECTION_FAILED
            if is_of_all or not may_be_skipped(collection, taken.cursor, taken.refused):
                raise
            refusal = f"{exc.failure.message} of {parent_at(taken.cursor)}"
            answer = Answer(None, wanted.path, is_missing=True)
        page = understood(provider, lambda: read_page(provider, taken.collection_id, answer, taken.cursor))
        return replace(page, refusal=refusal)

    def _ask(self, taken: Claim, collection_id: str, access: Access, wanted: Request) -> Answer:
        """Make the request that the reading has taken a place for, and leave that place."""
        try:
            return get(self.client, self.provider, collection_id, access, wanted)
        finally:
            self.pace.answered(taken.sync_id, taken.progress_id, fence=taken.fence)

    def _write(self, work: Callable[[Session], Claim | None]) -> Claim | None:
        return retrying(self.database, work)
