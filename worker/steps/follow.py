"""Following the API's feed of changed syncs: one request tells what changed, however many syncs there are.

The first pass lists every sync, later ones only what changed since. The cursor is kept with what was
recorded, in one transaction, so that a killed worker's successor misses nothing. An API without the feed is
found out by asking; then each connection is polled as it becomes due.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col

from foundation.database import Database
from models import ChangeCursor, Connection, State
from models.change_cursor import SYNCS
from worker.errors import (
    ApiRejectedError,
    InternalError,
    NotFoundError,
    ProvisioningError,
    RateLimitedError,
    UnusableAnswerError,
)
from worker.management import ChangesPage
from worker.policy import RetryPolicy
from worker.queue.claims import Watched, end_polls, take_over_polls, watched_by_sync
from worker.queue.record import Result, record
from worker.queue.schedule import want_polls_again
from worker.queue.verdict import Claim, Verdict
from worker.retry import jittered, retry_delay
from worker.runtime import Runtime
from worker.steps import poll
from worker.steps.failures import verdict_on_error
from worker.steps.feed import CALM, is_leased
from worker.steps.judge import Paces, judge, judge_missing
from worker.steps.poll import Read
from worker.steps.report import Report
from worker.steps.trouble import tell_limits

log = structlog.get_logger()

ABOUT_ONE_SYNC: Final = (ApiRejectedError, UnusableAnswerError)
"""Answers to the read of one sync that say nothing about the feed."""
LEASE: Final = timedelta(seconds=60)
PAGES_AT_ONCE: Final = 20
BUSY_PACE: Final = timedelta(seconds=0.9)  # found by the next sweep: once a second
"""While any initial backfill runs: customers wait for it to end."""
CALM_PACE: Final = timedelta(seconds=3.4)  # found by the next sweep
ASK_AGAIN_IN: Final = timedelta(hours=1)
"""How often an API without the feed is asked whether it has got one."""
AFTER_A_LISTING: Final = timedelta(minutes=10)
"""By then a new listing has met every sync that still exists."""
STALE_AFTER: Final = timedelta(minutes=2)
"""A feed that could not be followed for so long is given up for a while, and syncs are polled instead."""
_CURSOR_REFUSED: Final = frozenset({HTTPStatus.GONE, HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


def follow(runtime: Runtime, task_id: str | None = None) -> Report:
    """Read what changed since the last time, and record what that means for our connections."""
    held = _begin(runtime.database)
    if held is None:
        return Report()
    following = _Follow(runtime, held.fence, task_id)
    try:
        return following.run(held.cursor)
    except Exception as exc:  # a page that breaks us must not silence what polls would see
        log.exception("feed.broken")
        return following.broken(exc)


@dataclass(frozen=True, slots=True)
class _Held:
    fence: int
    cursor: str | None


def _begin(database: Database) -> _Held | None:
    """Take the feed, if it is due and no other worker has it."""
    try:
        return _taken(database)
    except IntegrityError:
        return None  # another worker has just made the row, and has the feed


def _taken(database: Database) -> _Held | None:
    with database.write() as session:
        now = database.now(session)
        feed = session.get(ChangeCursor, SYNCS, with_for_update=True)
        if feed is None:
            feed = ChangeCursor(due_at=now)
            session.add(feed)
        if feed.due_at > now or is_leased(feed, now):
            return None
        feed.fence += 1
        feed.leased_until = now + LEASE
        session.flush()
        return _Held(feed.fence, feed.cursor)


@dataclass
class _Follow:
    """One worker's turn at the feed."""

    runtime: Runtime
    fence: int
    task_id: str | None

    def run(self, cursor: str | None) -> Report:
        report = Report()
        for _ in range(PAGES_AT_ONCE):
            allowed = self.runtime.limits.reserve(1)
            if not allowed.calls:
                self._end(wait=timedelta(seconds=allowed.wait_s))
                return report
            try:
                page = self._ask(cursor)
                reads = self._confirmed(page) if page else {}
            except ProvisioningError as exc:
                self._failed(exc, report)
                return report
            tell_limits(self.runtime, successes=1)
            if page is None or _stands_still(page, cursor):
                self._unsupported(report)
                return report
            if not self._record(page, reads, report):
                return report
            cursor = page.next_cursor
            if not page.has_more:
                self._caught_up()
                return report
        report.is_full = True
        self._end(wait=timedelta(0))
        return report

    def broken(self, exc: Exception) -> Report:
        """A mistake of ours, or a database in trouble: try again, and give the feed up if that lasts."""
        report = Report()
        self._failed(InternalError(type(exc).__name__), report)
        return report

    def _ask(self, cursor: str | None) -> ChangesPage | None:
        asking = self.runtime.api.changed_syncs(cursor)
        return asyncio.run_coroutine_threadsafe(asking, self.runtime.loop).result()

    def _confirmed(self, page: ChangesPage) -> dict[str, Read]:
        """What the page says about each sync; a deleted one, or one that could not be read, is asked for."""
        reads: dict[str, Read] = {sync.id: sync for sync in page.changed}
        in_question = [*(sync.id for sync in page.deleted), *page.unread]
        if not in_question:
            return reads
        database = self.runtime.database
        with database.read() as session:
            watched = watched_by_sync(session, in_question, now=database.now(session))
        self.runtime.limits.give_back(-len(watched))  # only the page was reserved
        asking = poll.read_one_by_one([each.claim for each in watched], self.runtime.api)
        for claim, read in asyncio.run_coroutine_threadsafe(asking, self.runtime.loop).result():
            if isinstance(read, ProvisioningError) and not isinstance(read, ABOUT_ONE_SYNC):
                raise read
            reads[str(claim.remote_sync_id)] = read
        return reads

    def _record(self, page: ChangesPage, reads: dict[str, Read], report: Report) -> bool:
        """One page and its cursor, together; False if another worker has taken over."""
        database = self.runtime.database
        with database.write() as session:
            now = database.now(session)
            feed = self._mine(session)
            if feed is None:
                return False
            if reads:
                report.add(self._record_changed(session, reads, now))
            feed.cursor = page.next_cursor
            feed.is_supported, feed.failing_since = True, None
            feed.leased_until = now + LEASE
        return True

    def _record_changed(self, session: Session, reads: dict[str, Read], now: datetime) -> Sequence[Result]:
        """Take over the connections for which a change means something, and record that."""
        watched = watched_by_sync(session, list(reads), now=now)
        judged = self._judged([each.claim for each in watched], reads, now)
        being_read = {each.claim.connection_id for each in watched if each.is_being_read}
        news = {
            claim.connection_id
            for claim, verdict in judged
            if verdict.is_eventful or claim.connection_id in being_read
        }
        results: Sequence[Result] = ()
        if news:
            taken = take_over_polls(session, news, now=now, lease=self.runtime.lease, task_id=self.task_id)
            results = record(session, self._judged(taken, reads, now), now=now).results
        end_polls(session, self._calm(watched, news))
        return results

    def _calm(self, watched: Sequence[Watched], news: Collection[UUID]) -> list[UUID]:
        """Connections about which the page says nothing new, and that the feed watches alone from now on."""
        return [
            each.claim.connection_id
            for each in watched
            if each.claim.connection_id not in news
            and each.claim.state in CALM
            and each.claim.error_code is None
        ]

    def _judged(self, claims: Sequence[Claim], reads: dict[str, Read], now: datetime) -> list[Result]:
        policy, paces = self.runtime.policy, self.runtime.paces(is_followed=True)
        return [
            (claim, _judge(claim, reads[str(claim.remote_sync_id)], now, paces, policy)) for claim in claims
        ]

    def _caught_up(self) -> None:
        database = self.runtime.database
        with database.write() as session:
            now = database.now(session)
            feed = self._mine(session)
            if feed is None:
                return
            backfilling = select(exists().where(col(Connection.state) == State.BACKFILLING))
            pace = BUSY_PACE if session.scalars(backfilling).one() else CALM_PACE
            feed.caught_up_at = now
            feed.due_at, feed.leased_until = now + pace, None

    def _failed(self, error: ProvisioningError, report: Report) -> None:
        """Try again soon; a cursor that the API no longer accepts is given up for a new listing."""
        report.did[f"to retry: {error.code}"] += 1
        if isinstance(error, RateLimitedError):
            self.runtime.limits.pause(retry_delay(1, retry_after_s=error.retry_after_s))
        database = self.runtime.database
        with database.write() as session:
            now = database.now(session)
            feed = self._mine(session)
            if feed is None:
                return
            feed.failing_since = feed.failing_since or now
            is_given_up = _refuses_feed(feed, error) or _is_stale(feed, now)
            is_refused = isinstance(error, ApiRejectedError) and error.status in _CURSOR_REFUSED
            begins_anew = is_refused and feed.cursor is not None
            feed.due_at = now + retry_delay(3)
            feed.leased_until = now + LEASE if begins_anew or is_given_up else None
        if is_given_up:
            self._unsupported(report)
        elif begins_anew:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """List everything again. What the new listing does not meet is read by itself after it.

        The polls are made due first: a worker killed in between leaves the old cursor, to be refused again.
        """
        log.warning("feed.restarted")
        self._poll_instead(after=AFTER_A_LISTING)
        database = self.runtime.database
        with database.write() as session:
            feed = self._mine(session)
            if feed is not None:
                feed.cursor, feed.caught_up_at, feed.leased_until = None, None, None

    def _unsupported(self, report: Report) -> None:
        """The API has no feed: read by itself every sync that only the feed was telling about.

        From the first transaction on no poll relies on the feed; the last one says when to ask again. A
        worker killed in between leaves the feed due, and the next worker wakes the rest.
        """
        database = self.runtime.database
        with database.write() as session:
            feed = self._mine(session)
            if feed is None:
                return
            was_supported = feed.is_supported
            feed.is_supported, feed.cursor = False, None
            feed.caught_up_at, feed.failing_since = None, None
            feed.due_at = database.now(session)
            feed.leased_until = feed.due_at + LEASE
        if was_supported:
            log.warning("feed.lost")
        self._poll_instead()
        with database.write() as session:
            feed = self._mine(session)
            if feed is not None:
                feed.due_at = database.now(session) + jittered(ASK_AGAIN_IN)
                feed.leased_until = None
        report.did["the API has no feed of changes"] += 1

    def _poll_instead(self, *, after: timedelta = timedelta(0)) -> None:
        """Have every quiet sync read within the health pace, beginning after this time."""
        database, last = self.runtime.database, None
        while True:
            with database.write() as session:
                begin = database.now(session) + after
                last = want_polls_again(session, last, now=begin, within=self.runtime.health_pace)
            if last is None:
                return

    def _end(self, *, wait: timedelta) -> None:
        database = self.runtime.database
        with database.write() as session:
            feed = self._mine(session)
            if feed is not None:
                feed.due_at, feed.leased_until = database.now(session) + wait, None

    def _mine(self, session: Session) -> ChangeCursor | None:
        feed = session.get(ChangeCursor, SYNCS, with_for_update=True)
        return feed if feed is not None and feed.fence == self.fence else None


def _stands_still(page: ChangesPage, cursor: str | None) -> bool:
    """Whether this is an ordinary list with pages, of an API that does not know `changed_since`."""
    return page.has_more and page.next_cursor == cursor


def _refuses_feed(feed: ChangeCursor, error: ProvisioningError) -> bool:
    """Whether the API refuses to be asked for changes at all, rather than from this cursor on."""
    if feed.cursor is not None:
        return False
    if isinstance(error, UnusableAnswerError):
        return not feed.is_supported  # for example a list of everything, which is too long
    return isinstance(error, ApiRejectedError)


def _is_stale(feed: ChangeCursor, now: datetime) -> bool:
    """Whether a feed that polls rely on, or whose listing has ended some of them, has failed for too long."""
    return (
        feed.is_supported is True
        and feed.failing_since is not None
        and now - feed.failing_since > STALE_AFTER
    )


def _judge(claim: Claim, read: Read, now: datetime, paces: Paces, policy: RetryPolicy) -> Verdict:
    """Judge what the feed says. It calls nobody failed: the poll that confirms a refusal does."""
    if isinstance(read, NotFoundError):
        return judge_missing(claim, read, paces=paces)
    if isinstance(read, ProvisioningError):
        return verdict_on_error(claim, read, policy, now=now, is_incident=True)
    return judge(claim, read, now=now, paces=paces, policy=policy, is_incident=None)
