"""What a process needs to work: opened once, after any fork, and closed when it ends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from foundation.database import Database
from foundation.vault import Vault
from worker.gate import Gate, gate_for
from worker.management import AsyncManagementApi, ManagementApi
from worker.management.client import MAX_CONNECTIONS
from worker.outage import Outage
from worker.plans import Plans
from worker.rows.leases import LeaseKeeper
from worker.settings import Settings, settings
from worker.steps.streams import Streams
from worker.steps.verdict import RetryPolicy


@dataclass(frozen=True)
class Runtime:
    """Everything the steps use. Tests build one from parts; a worker process opens one from its settings."""

    settings: Settings
    database: Database
    vault: Vault
    plans: Plans
    api: ManagementApi
    async_api: AsyncManagementApi
    portal: BlockingPortal
    """The event loop in which `async_api` lives."""
    streams: Streams
    gate: Gate
    outage: Outage
    leases: LeaseKeeper
    calls: ThreadPoolExecutor
    """Runs the calls of all steps, so that a process never has more under way than it has connections."""
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
        parked_pace = timedelta(seconds=self.settings.parked_retry_s)
        return RetryPolicy(self.settings.max_attempts, parked_pace)

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        api: ManagementApi | None = None,
        async_api: AsyncManagementApi | None = None,
    ) -> Self:
        """Open databases, clients and threads; `close` ends them all."""
        plans = Plans.load(settings.plans_file)
        token = settings.api_token.get_secret_value()
        with ExitStack() as resources:
            database = Database(settings.database_url.get_secret_value())
            resources.callback(database.dispose)
            api = api or ManagementApi(settings.api_url, token)
            resources.callback(api.close)
            portal = resources.enter_context(start_blocking_portal())
            async_api = async_api or portal.call(AsyncManagementApi, settings.api_url, token)
            resources.enter_context(portal.wrap_async_context_manager(async_api))
            leases = LeaseKeeper(database, timedelta(seconds=settings.lease_s))
            resources.callback(leases.close)
            calls = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="call")
            resources.enter_context(calls)
            return cls(
                settings=settings,
                database=database,
                vault=settings.vault(),
                plans=plans,
                api=api,
                async_api=async_api,
                portal=portal,
                streams=Streams(api),
                gate=gate_for(settings.broker_url.get_secret_value()),
                outage=Outage(),
                leases=leases,
                calls=calls,
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
