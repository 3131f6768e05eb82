"""The engine's Celery app: its tasks are thin edges, ids in and a line of summary out.

The monitor (Flower) shows the summary as the result. Periodic tasks send no events, which would fill its
history.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from celery import Celery, Task

from engine.backfill.reader import Reader
from engine.backfill.report import Report
from engine.collections.inspect import Inspector
from engine.hints import INSPECT, PURGE, PURGE_EVERY_S, READ, SWEEP, new_celery, publish, send
from engine.purge import CHANGES_KEPT, purge
from engine.sweep import find_due
from foundation.database import utc_now
from foundation.hints import BROKER_ERRORS
from foundation.logs import place_of
from foundation.queue import Role

SHARED_SLICE_S: Final = 0.3
"""The readings of one message that are not done by then are handed on, each in a message of its own."""

log = structlog.get_logger(__name__)


class TaskFailedError(Exception):
    """Stands for an error whose words are better not repeated."""


class DiscreetTask(Task[..., str | None]):
    """Fails with an error's type and place. Celery would repeat its words, and they may hold a secret."""

    def __call__(self, *args: Any, **kwargs: Any) -> str | None:
        try:
            return self.run(*args, **kwargs)
        except Exception as exc:  # noqa: BLE001  # whatever it is, others would print it
            error, place = type(exc).__name__, place_of(exc)
            log.error("task.failed", task=self.name, error=error, at=place)  # noqa: TRY400  # without its words
            raise TaskFailedError(f"{error} at {place}") from None


def create_celery(broker_url: str, reader: Reader, changes_kept: timedelta = CHANGES_KEPT) -> Celery:
    """Return the app of one worker process."""
    app = new_celery(broker_url, Role.CONSUMER)
    hasty = replace(reader, slice_s=SHARED_SLICE_S)
    inspector = Inspector(reader.database, reader.authority, reader.client, reader.pace, reader.stopping)

    @app.task(name=READ, base=DiscreetTask, shared=False)
    def read(progress_ids: list[str]) -> str:
        """Read some pages of each. Running it again is harmless."""
        has_company, report = len(progress_ids) > 1, Report()
        unfinished = (hasty if has_company else reader).read([UUID(each) for each in progress_ids], report)
        for each, later_s in unfinished.items():  # apart, so that other workers may take some
            publish(app, READ, [each], later_s=later_s)
        return str(report)

    @app.task(name=INSPECT, base=DiscreetTask, shared=False)
    def inspect(credential_ids: list[str]) -> str:
        """Learn what the records behind each look like."""
        return "; ".join(inspector.refresh(UUID(each)) for each in credential_ids)

    @app.task(name=SWEEP, base=DiscreetTask, shared=False, send_events=False)
    def sweep() -> None:
        """Send a hint for every due reading that has none, unless too many wait as it is."""
        if reader.is_crowded():
            log.info("sweep.waits", reason="the queue is full")
            return
        due = find_due(reader.database, utc_now())
        if due:
            log.info("engine.swept", due=len(due))
        publish(app, READ, due)

    @app.task(name=PURGE, base=DiscreetTask, shared=False, send_events=False)
    def erase(sync_ids: Sequence[str] = ()) -> None:
        """Erase these removed syncs, or all that is to be erased; what is left then waits behind others."""
        only = [UUID(each) for each in sync_ids]
        if not purge(reader.database, utc_now(), only, changes_kept=changes_kept):
            with suppress(*BROKER_ERRORS):  # the clock asks for it again anyway
                send(app, PURGE, [], expires_s=PURGE_EVERY_S)

    return app
