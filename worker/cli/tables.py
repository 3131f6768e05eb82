"""The overview as tables for people."""

from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.cli.overview import ConnectionView, Overview, TenantDetail, TenantView

COLOURS = {"ready": "green", "failed": "red", "degraded": "yellow"}


def print_overview(overview: Overview, console: Console, now: datetime) -> None:
    table = Table()
    for name in ("tenant", "name", "plan", "state", "connections", "signed up", "problem"):
        table.add_column(name, overflow="fold")
    for tenant in overview.data:
        table.add_row(*_tenant_row(tenant, now))
    console.print(table)
    if overview.tenants > len(overview.data):
        console.print(f"{len(overview.data)} of {overview.tenants} tenants; --limit shows more.")
    counts = ", ".join(f"{count} {state}" for state, count in overview.connections_by_state.items())
    console.print(f"Connections: {counts or 'none yet'}.")
    if waiting := overview.oldest_waiting:
        who = f"{plain(waiting.external_id)} ({waiting.provider})"
        console.print(f"Waiting the longest: {who}, {waiting.state}, for {age(now - waiting.since)}.")


def print_tenant(tenant: TenantDetail, console: Console, now: datetime) -> None:
    console.print(
        Text.assemble(plain(tenant.external_id), " ", plain(tenant.name), " is ", _state(tenant.state))
    )
    console.print(f"plan {tenant.plan}, signed up {age(now - tenant.created_at)} ago, id {tenant.id}")
    for connection in tenant.connections:
        _print_connection(connection, console, now)
    _print_history(tenant, console)
    _print_attempts(tenant, console)


def plain(text: str | None) -> Text:
    """A customer's words, without what could command the terminal."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text or ""))


def age(span: timedelta) -> str:
    """`45 s`, `12 min`, `3 h`, `5 d`: as much as one reads at a glance."""
    seconds = max(span.total_seconds(), 0)
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def next_action(connection: ConnectionView, now: datetime) -> str:
    """What happens next and when."""
    if connection.next_step is None:
        return "nothing, until an event arrives"
    if connection.due_at is None:
        return f"{connection.next_step}, not scheduled"
    wait = connection.due_at - now
    return f"{connection.next_step} {'now' if wait <= timedelta(0) else 'in ' + age(wait)}"


def _tenant_row(tenant: TenantView, now: datetime) -> list[str | Text]:
    connections = ", ".join(_named(c) + f": {c.state}" for c in tenant.connections)
    problem = next((c.error.message or c.error.code for c in tenant.connections if c.error), "")
    state = _state(tenant.state)
    signed_up = f"{age(now - tenant.created_at)} ago"
    return [
        plain(tenant.external_id),
        plain(tenant.name),
        tenant.plan,
        state,
        connections,
        signed_up,
        plain(problem),
    ]


def _print_connection(connection: ConnectionView, console: Console, now: datetime) -> None:
    console.print(Text.assemble("\n", (_named(connection), "bold"), ": ", _state(connection.state)))
    console.print(
        f"  sync {connection.sync_id or 'not created yet'}, health {connection.health or 'unknown'}"
    )
    console.print(
        f"  next: {next_action(connection, now)}; attempts of this step so far: {connection.attempts}"
    )
    if error := connection.error:
        console.print(Text.assemble("  ", (error.code, "red"), ": ", plain(error.message)))
        console.print(plain(f"  what to do: {error.advice or 'nothing is known to help'}"))


def _print_history(tenant: TenantDetail, console: Console) -> None:
    table = Table(title="history", title_justify="left")
    for name in ("when", "connection", "from", "to", "why"):
        table.add_column(name, overflow="fold")
    names = {connection.id: _named(connection) for connection in tenant.connections}
    for move in tenant.history:
        table.add_row(
            f"{move.at:%Y-%m-%d %H:%M:%S}",
            names.get(move.connection_id),
            move.from_state,
            move.to_state,
            plain(move.why),
        )
    console.print(table)


def _print_attempts(tenant: TenantDetail, console: Console) -> None:
    table = Table(title="last attempts, newest first", title_justify="left")
    for name in ("when", "connection", "step", "try", "outcome", "took", "error"):
        table.add_column(name, overflow="fold")
    names = {connection.id: _named(connection) for connection in tenant.connections}
    for attempt in tenant.last_attempts:
        took = (attempt.finished_at - attempt.started_at).total_seconds()
        error = ": ".join(filter(None, (attempt.error_code, attempt.error_message)))
        when = f"{attempt.finished_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            when,
            names.get(attempt.connection_id),
            attempt.step,
            str(attempt.number),
            attempt.outcome,
            f"{took:.2f} s",
            plain(error),
        )
    console.print(table)


def _named(connection: ConnectionView) -> str:
    return connection.provider if connection.slot == "default" else f"{connection.provider}/{connection.slot}"


def _state(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, ""))
