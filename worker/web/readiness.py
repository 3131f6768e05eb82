"""Whether webhooks can be stored, found out at a gentle pace and told within a bounded time."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, Literal, TypeVar

import structlog
from celery import Celery
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from foundation.database import Database
from foundation.logs import place_of
from foundation.migrations import is_current
from models import MIGRATIONS
from worker.sweep import backlog

FRESH_S: Final = 1.0
PATIENCE_S: Final = 2.0
WRITE_PROBE_EVERY_S: Final = 10.0
FAILURE_COUNTS_S: Final = 15.0
_WRITE: Final = text("UPDATE alembic_version SET version_num = version_num")
"""A real write that changes nothing; alembic's own table, since no query of ours waits for its row."""

Verdict = Literal["ok", "unreachable", "too slow", "not migrated", "not writable"]
Answer = TypeVar("Answer")

log = structlog.get_logger()


class Probe(Generic[Answer]):
    """Asks a question that may hang: in a thread, one at a time, at most once a second."""

    def __init__(self, ask: Callable[[], Answer], *, late: Answer) -> None:
        self._ask = ask
        self._late = late
        self._begun_at = -FRESH_S
        self._asked: Future[Answer] | None = None

    async def answer(self) -> Answer:
        """Return the last answer if it is fresh, a new one if it comes soon, and otherwise `late`."""
        asked = self._current()
        if asked.done():
            return asked.result()
        remaining_s = self._begun_at + PATIENCE_S - time.monotonic()
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(asked)), max(remaining_s, 0))
        except TimeoutError:
            return self._late

    def _current(self) -> Future[Answer]:
        is_fresh = time.monotonic() - self._begun_at < FRESH_S
        if self._asked is None or (self._asked.done() and not is_fresh):
            self._begun_at = time.monotonic()
            self._asked = Future()
            # a daemon: a question that hangs must not keep the process from ending
            threading.Thread(target=self._run, args=(self._asked,), name="probe", daemon=True).start()
        return self._asked

    def _run(self, asked: Future[Answer]) -> None:
        try:
            asked.set_result(self._ask())
        except Exception as exc:  # noqa: BLE001  # a question that cannot be answered has no good answer
            log.error("probe.broken", error=type(exc).__name__, place=place_of(exc))  # noqa: TRY400  # its words
            asked.set_result(self._late)


class Storage:
    """Whether the database has our tables and takes writes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_current = False
        self._written_at = -math.inf
        self._failed_at = -math.inf

    def note_write(self) -> None:
        """An event was stored just now: nobody needs to try."""
        self._written_at, self._failed_at = time.monotonic(), -math.inf

    def note_failure(self) -> None:
        """An event could not be stored just now. On an almost full disk the smaller probe still succeeds."""
        self._failed_at = time.monotonic()

    def check(self) -> Verdict:
        try:
            with self._database.read() as session:
                session.execute(text("SELECT 1"))
            self._is_current = self._is_current or is_current(self._database, MIGRATIONS)
        except SQLAlchemyError:
            return "unreachable"
        return self._writable() if self._is_current else "not migrated"

    def _writable(self) -> Verdict:
        now = time.monotonic()
        if now - self._failed_at < FAILURE_COUNTS_S:
            return "not writable"
        if now - self._written_at < WRITE_PROBE_EVERY_S:
            return "ok"
        try:
            with self._database.write() as session:
                session.execute(_WRITE)
        except SQLAlchemyError:
            return "not writable"
        self.note_write()
        return "ok"


def messages_waiting(celery: Celery) -> dict[str, int] | None:
    """How many messages wait in each queue; nothing if the broker does not answer."""
    try:
        return backlog(celery)
    except Exception:  # noqa: BLE001  # whatever this broker's client raises
        return None
