"""What the demo shows while it runs: a live table on a terminal, a line for each change elsewhere."""

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.demo.progress import TenantStatus

COLOURS: Final = {"ready": "green", "failed": "red"}


class Board:
    """Inside the block, `update` shows how the tenants stand."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, tenants: Sequence[TenantStatus], records: Counter[str]) -> None:
        if self._live:
            self._live.update(_table(tenants, records), refresh=True)
            return
        for tenant in tenants:
            if tenant.is_settled and self._told.get(tenant.external_id) != tenant.state:
                self._told[tenant.external_id] = tenant.state
                self._console.print(_line(tenant))


def _table(tenants: Sequence[TenantStatus], records: Counter[str]) -> Table:
    ready = sum(tenant.state == "ready" for tenant in tenants)
    table = Table(title=f"{ready} of {len(tenants)} ready", title_justify="left")
    for name in ("tenant", "name", "provider", "state"):
        table.add_column(name)
    table.add_column("records", justify="right")
    table.add_column("time to ready", justify="right")
    for tenant in tenants:
        state = Text(tenant.state, style=COLOURS.get(tenant.state, "yellow"))
        providers = ", ".join(connection.provider for connection in tenant.connections)
        count = str(records[tenant.external_id] or "")
        table.add_row(tenant.external_id, tenant.name, providers, state, count, _seconds(tenant))
    return table


def _line(tenant: TenantStatus) -> str:
    if tenant.state == "ready":
        return f"{tenant.external_id} ({tenant.name}) is ready after {_seconds(tenant)}"
    return f"{tenant.external_id} ({tenant.name}) has {tenant.state}"


def _seconds(tenant: TenantStatus) -> str:
    return "" if tenant.seconds_to_ready is None else f"{tenant.seconds_to_ready:.1f} s"
