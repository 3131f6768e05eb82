"""The worker's watchdog: looks at the messages that wait in this worker's own queues."""

from collections.abc import Sequence

from celery import Celery

from foundation.backlog import backlog
from foundation.watchdog import Watchdog
from worker.settings import Settings


def watch_progress(settings: Settings, app: Celery, queues: Sequence[str]) -> Watchdog:
    """End this process when it makes no progress although messages wait in its queues."""

    def waiting() -> int:
        return sum(backlog(app, queues).values())

    watchdog = Watchdog(waiting, limit_s=settings.stalled_after_s)
    watchdog.start()
    return watchdog
