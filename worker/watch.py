"""The worker's watchdog: what waits for this worker's queues, asked of the broker itself."""

from collections.abc import Sequence

from celery import Celery

from foundation.watchdog import Watchdog
from worker.settings import Settings
from worker.sweep import backlog


def watch_progress(settings: Settings, app: Celery, queues: Sequence[str]) -> Watchdog:
    """End this process when it makes no progress although messages wait in its queues."""

    def waiting() -> int:
        lengths = backlog(app)
        return sum(lengths.get(queue, 0) for queue in queues)

    watchdog = Watchdog(waiting, limit_s=settings.stalled_after_s)
    watchdog.start()
    return watchdog
