"""Whether so many hints wait that another would only wait as well, and keep newer ones waiting."""

import time
from typing import Final

from celery import Celery

from engine.hints import BACKFILL_QUEUE
from foundation.backlog import BACKLOG_LIMIT, backlog
from foundation.hints import BROKER_ERRORS

HOLDS_S: Final = 0.5
"""A worker's threads share an answer for so long."""


class Crowd:
    """The queue of readings as one process knows it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._is_crowded = False
        self._asked_at = float("-inf")

    def __call__(self) -> bool:
        """Whether readings are better left to the sweep, which offers what has waited longest."""
        if time.monotonic() - self._asked_at > HOLDS_S:
            self._asked_at = time.monotonic()
            self._is_crowded = self._ask()
        return self._is_crowded

    def _ask(self) -> bool:
        try:
            return backlog(self._app, [BACKFILL_QUEUE])[BACKFILL_QUEUE] >= BACKLOG_LIMIT
        except BROKER_ERRORS:
            return False  # then no hint arrives either
