"""The inbox: messages that arrive together share one commit, and each still stands or falls alone."""

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from foundation.database import Database
from worker.intake.accept import Accepted, Intake, Message
from worker.intake.events import REUSED_ID, InvalidEventError

log = structlog.get_logger()

MESSAGES_PER_COMMIT: Final = 50
MOST_WAITING: Final = 1000


class InboxFullError(Exception):
    """So many messages wait to be stored that one more would not be stored in time."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    answer: "Future[Accepted]"


class Inbox:
    """Stores messages from one thread: one writer, few commits, bounded waits."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._thread.start()

    def accept(self, message: Message) -> "Future[Accepted]":
        """The answer, once it is committed; `InvalidEventError` if the message is refused.

        Raises `InboxFullError` when too many messages wait already.
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
        while len(group) < MESSAGES_PER_COMMIT:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return group, True
            group.append(waiting)
        return group, False

    def _store(self, group: list[_Waiting]) -> None:
        # in one order everywhere, so that two groups that share tenants cannot lock each other out
        group.sort(key=lambda waiting: waiting.message.event.data.external_id)
        outcomes: list[Accepted | Exception] = []
        try:
            with self._database.write() as session:
                outcomes = [self._store_one(session, waiting.message) for waiting in group]
        except Exception as exc:  # nor the thread that stores them
            log.exception("inbox.not_stored", messages=len(group))
            outcomes = [exc] * len(group)
        for waiting, outcome in zip(group, outcomes, strict=True):
            if not waiting.answer.set_running_or_notify_cancel():
                continue  # nobody waits any more; the message is stored all the same
            if isinstance(outcome, Exception):
                waiting.answer.set_exception(outcome)
            else:
                waiting.answer.set_result(outcome)

    def _store_one(self, session: Session, message: Message) -> Accepted | Exception:
        """Inside a savepoint: a message that is refused takes no other with it."""
        try:
            with session.begin_nested():
                return self._intake.accept(session, message)
        except InvalidEventError as exc:
            return exc
        except IntegrityError:  # its id was taken by a message about another tenant, stored at this moment
            return InvalidEventError({"webhook-id": [REUSED_ID]})
        except Exception as exc:  # a mistake of ours must cost one message, not all of them
            log.exception("inbox.broken", message_id=message.id)
            return exc
