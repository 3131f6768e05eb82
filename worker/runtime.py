"""What a process needs to work: opened once, after any fork, and closed when it ends."""

import asyncio
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from foundation.broker import redis_client
from foundation.database import Database
from foundation.vault import Vault
from worker.limits import Limits, RedisLimits, pause_asked_for
from worker.management import ManagementApi
from worker.management.calls import Answer
from worker.plans import Plans
from worker.policy import RetryPolicy
from worker.queue.leases import ClaimKeeper
from worker.settings import Settings, settings
from worker.steps.judge import Paces
from worker.steps.poll import StreamSizes
from worker.steps.streams import Streams


@dataclass(frozen=True)
class Runtime:
    """Everything the steps use. Tests build one from parts; a worker process opens one from its settings."""

    settings: Settings
    database: Database
    vault: Vault
    plans: Plans
    api: ManagementApi
    loop: asyncio.AbstractEventLoop
    """In which all calls of the API run."""
    streams: Streams
    sizes: StreamSizes
    limits: Limits
    leases: ClaimKeeper
    _resources: ExitStack

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.settings.lease_s)

    @property
    def settle(self) -> timedelta:
        return timedelta(seconds=self.settings.create_settle_s)

    @property
    def health_pace(self) -> timedelta:
        return timedelta(seconds=self.settings.health_poll_s)

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(
            self.settings.max_attempts,
            timedelta(seconds=self.settings.parked_retry_s),
            refusals=self.settings.refusals,
            refusal_lasts=timedelta(seconds=self.settings.refusal_lasts_s),
        )

    def paces(self, *, is_followed: bool) -> Paces:
        return Paces(self.health_pace, self.policy.parked_pace, is_followed=is_followed)

    @classmethod
    def open(
        cls, settings: Settings, *, api: ManagementApi | None = None, limits: Limits | None = None
    ) -> Self:
        """Open databases, clients and threads; `close` ends them all."""
        plans = Plans.load(settings.plans_file)
        with ExitStack() as resources:
            database = Database(settings.database_url.get_secret_value())
            resources.callback(database.dispose)
            limits = limits or _limits(settings)
            portal = resources.enter_context(start_blocking_portal(backend_options={"use_uvloop": True}))
            api = api or portal.call(_client, settings, limits)
            resources.callback(portal.call, api.close)
            leases = ClaimKeeper(database, timedelta(seconds=settings.lease_s))
            resources.callback(leases.close)
            return cls(
                settings=settings,
                database=database,
                vault=settings.vault(),
                plans=plans,
                api=api,
                loop=_loop_of(portal),
                streams=Streams(api),
                sizes=StreamSizes(),
                limits=limits,
                leases=leases,
                _resources=resources.pop_all(),
            )

    def close(self) -> None:
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _limits(settings: Settings) -> RedisLimits:
    client = redis_client(settings.broker_url.get_secret_value())
    return RedisLimits(client, rate=settings.api_rate, burst=settings.api_burst)


def _client(settings: Settings, limits: Limits) -> ManagementApi:
    def observe(answer: Answer) -> None:
        wait = pause_asked_for(answer.headers)
        if wait is not None:  # not in the loop's own thread, which must never wait for Redis
            asyncio.get_running_loop().run_in_executor(None, limits.pause, wait)

    return ManagementApi(settings.api_url, settings.api_token.get_secret_value(), observe=observe)


def _loop_of(portal: BlockingPortal) -> asyncio.AbstractEventLoop:
    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    return portal.call(running)


_opening = threading.Lock()


def runtime() -> Runtime:
    """This process's runtime, opened by the first task that needs it."""
    with _opening:
        return _open()


def close_runtime() -> None:
    """Close what `runtime` opened, if it did; its threads would keep the process from ending."""
    with _opening:
        if _open.cache_info().currsize:
            _open().close()
            _open.cache_clear()


@cache
def _open() -> Runtime:
    return Runtime.open(settings())
