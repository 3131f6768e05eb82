"""Runs a worker: Celery's threads in this process, and a clock that asks for sweeps."""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from celery import Celery
from celery.signals import worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from engine.app import create_celery
from engine.authority import own_apps
from engine.backfill.claim import LEASE, renew
from engine.backfill.fetch import TIMEOUT
from engine.backfill.pace import Pace
from engine.backfill.reader import Reader
from engine.changes.rhythm import Rhythm
from engine.clients import new_client
from engine.crowd import Crowd
from engine.hints import PURGE, PURGE_EVERY_S, QUEUES, SWEEP, new_celery, send
from engine.providers.catalogue import load_catalogue
from engine.schema import open_database
from engine.sealing import Safe
from engine.settings import Settings
from foundation.backlog import backlog
from foundation.database import utc_now
from foundation.hints import BROKER_ERRORS
from foundation.leases import LeaseKeeper
from foundation.queue import Role, run_worker
from foundation.watchdog import Watchdog

SWEEP_EVERY_S: Final = 1.0
GRACE_S: Final = 1.5
"""After that, a request still under way is abandoned, and its reading left to other workers."""
LAST_WORDS_S: Final = 0.5
"""How long the database may take to be told; otherwise the leases run out."""
RENEW_EVERY_S: Final = 1.0
STALLED_AFTER_S: Final = 60.0

log = structlog.get_logger(__name__)


def work(settings: Settings) -> int:
    """Work until told to stop, and give the exit status: that of a worker that failed is not zero."""
    broker_url = settings.broker_url.get_secret_value()
    stopping = threading.Event()
    publisher = new_celery(broker_url, Role.PUBLISHER)
    reader = Reader(
        database=open_database(settings, pool_size=settings.work_threads + 2),
        safe=Safe(settings.vault()),
        catalogue=load_catalogue(settings.providers),
        pace=Pace.on_redis(broker_url),
        client=new_client(connections=settings.work_threads, timeout=TIMEOUT),
        stopping=stopping,
        own_apps=own_apps(settings.providers),
        beds=threading.Semaphore(settings.work_threads // 2),
        rhythm=Rhythm(settings.watch_floor_s, settings.watch_ceiling_s, settings.whole_pass_every_s),
        is_crowded=Crowd(publisher),
    )
    LeaseKeeper(reader.leases, partial(_renew, reader), every_s=RENEW_EVERY_S)
    app = create_celery(broker_url, reader, timedelta(days=settings.changes_kept_days))
    watchdog = Watchdog(lambda: sum(backlog(publisher, QUEUES).values()), limit_s=STALLED_AFTER_S)

    def stop(exitcode: int, **_: object) -> None:
        stopping.set()
        threading.Thread(target=_leave_in_time, args=(reader, exitcode), name="grace", daemon=True).start()

    worker_shutting_down.connect(stop, weak=False)
    watchdog.start()
    Clock(publisher, stopping).start()
    return run_worker(app, _arguments(settings))


class Clock:
    """Publishes the periodic tasks.

    Every worker has one: a sweep is harmless to repeat, and its messages expire when nobody takes them.
    """

    def __init__(self, app: Celery, stopping: threading.Event) -> None:
        self._app = app
        self._stopping = stopping
        self._last_purge_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(SWEEP_EVERY_S):
            self._tick()

    def _tick(self) -> None:
        try:
            send(self._app, SWEEP, [], expires_s=5 * SWEEP_EVERY_S)
            if time.monotonic() - self._last_purge_at > PURGE_EVERY_S:
                send(self._app, PURGE, [], expires_s=PURGE_EVERY_S)
                self._last_purge_at = time.monotonic()
        except BROKER_ERRORS as exc:
            log.warning("tick.not_sent", error=type(exc).__name__)


def _arguments(settings: Settings) -> list[str]:
    return [
        "--quiet",
        "worker",
        "--pool=threads",
        f"--concurrency={settings.work_threads}",
        f"--queues={','.join(QUEUES)}",
        f"--hostname=engine-{os.getpid()}@%h",
        "--without-gossip",
        "--without-mingle",
        f"--loglevel={settings.log_level}",
    ]


def _renew(reader: Reader, held: Mapping[UUID, int]) -> None:
    renew(reader.database, held, until=utc_now() + LEASE)


def _leave_in_time(reader: Reader, status: int) -> None:
    """Let others have what is still being read, and end."""
    time.sleep(GRACE_S)
    threading.Timer(LAST_WORDS_S, os._exit, [status]).start()
    with suppress(SQLAlchemyError):
        renew(reader.database, reader.leases.held(), until=None)
    os._exit(status)
