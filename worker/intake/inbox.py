"""The inbox: messages that arrive together share one commit, and each still stands or falls alone."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from foundation.database import Database
from foundation.logs import place_of
from worker.intake.accept import Accepted, Intake, Message, Outcome

log = structlog.get_logger()

MESSAGES_PER_COMMIT: Final = 100
CONNECTIONS_PER_COMMIT: Final = 1_000
"""With so many connections named a group is full: its statements and its locks stay small."""
MOST_WAITING: Final = 1_000
"""Messages in memory; a sender that is told to come back loses nothing, one that waits too long gives up."""


class InboxFullError(Exception):
    """Too many messages are waiting to be stored: come back in a moment."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    answer: "Future[Accepted]"


class Inbox:
    """Stores messages from one thread: one writer, few commits, bounded waits."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._thread.start()

    def accept(self, message: Message) -> "Future[Accepted]":
        """The answer, once it is committed; `InvalidEventError` if the message is refused.

        Raises `InboxFullError` when too many messages are waiting.
        """
        if self._waiting.qsize() >= MOST_WAITING:
            raise InboxFullError
        answer: Future[Accepted] = Future()
        self._waiting.put(_Waiting(message, answer))
        return answer

    def close(self) -> None:
        """Store what has arrived, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, is_last = self._gather(first)
            self._store(group)
            if is_last:
                return

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        group = [first]
        named = first.message.connections
        while len(group) < MESSAGES_PER_COMMIT and named < CONNECTIONS_PER_COMMIT:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return group, True
            group.append(waiting)
            named += waiting.message.connections
        return group, False

    def _store(self, group: Sequence[_Waiting]) -> None:
        messages = [waiting.message for waiting in group]
        for waiting, outcome in zip(group, self._outcomes(messages), strict=True):
            if not waiting.answer.set_running_or_notify_cancel():
                continue  # the request is gone; the message is stored all the same
            if isinstance(outcome, Exception):
                waiting.answer.set_exception(outcome)
            else:
                waiting.answer.set_result(outcome)

    def _outcomes(self, messages: Sequence[Message]) -> Sequence[Outcome | Exception]:
        """All in one transaction; if one of them breaks that, each again in a transaction of its own."""
        try:
            return self._stored(messages)
        except Exception as exc:  # noqa: BLE001  # told by its type, since it may quote what was sent
            if _concerns_all(exc):
                return [_not_stored(exc, len(messages))] * len(messages)
        return self._each_alone(messages)

    def _each_alone(self, messages: Sequence[Message]) -> Sequence[Outcome | Exception]:
        outcomes: list[Outcome | Exception] = []
        for message in messages:
            outcome = self._alone(message)
            outcomes.append(outcome)
            if isinstance(outcome, Exception) and _concerns_all(outcome):
                return outcomes + [outcome] * (len(messages) - len(outcomes))
        return outcomes

    def _alone(self, message: Message) -> Outcome | Exception:
        try:
            return self._stored_alone(message)
        except Exception as exc:  # noqa: BLE001  # as above; nor may it end the thread that stores
            return _not_stored(exc, 1)

    def _stored_alone(self, message: Message) -> Outcome:
        try:
            return self._stored([message])[0]
        except IntegrityError:  # another process has just stored a message of this id: its answer counts
            return self._stored([message])[0]

    def _stored(self, messages: Sequence[Message]) -> list[Outcome]:
        with self._database.write() as session:
            session.autoflush = False
            return self._intake.accept_all(session, messages, now=self._database.now(session))


def _not_stored(exc: Exception, messages: int) -> Exception:
    log.error("inbox.not_stored", messages=messages, reason=type(exc).__name__, at=place_of(exc))
    return exc


def _concerns_all(exc: Exception) -> bool:
    """Whether the database itself is in trouble, so that trying each message alone would only add to it."""
    return isinstance(exc, OperationalError) or (isinstance(exc, DBAPIError) and exc.connection_invalidated)
