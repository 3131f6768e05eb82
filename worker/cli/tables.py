"""The overview as tables for people."""

from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.cli.limits import LimitsView
from worker.cli.overview import Overview, TenantDetail
from worker.views import COUNTED_AT_MOST, ConnectionView, TenantView

CONNECTIONS_IN_A_LINE = 5
COLOURS = {"ready": "green", "failed": "red", "degraded": "yellow"}


def print_overview(overview: Overview, console: Console, now: datetime) -> None:
    table = _lines("tenant", "name", "state", "connections", "signed up", "problem")
    for tenant in overview.tenants:
        table.add_row(*_tenant_row(tenant, now))
    if overview.tenants:
        console.print(table)
    if overview.tenant_count > len(overview.tenants):
        console.print(
            f"{len(overview.tenants)} of {counted(overview.tenant_count)} tenants; --limit shows more."
        )
    counts = ", ".join(f"{counted(count)} {state}" for state, count in overview.connections_by_state.items())
    console.print(f"Connections: {counts or 'none yet'}.")
    for incident in overview.incidents:
        console.print(
            f"Incident: {plain(incident.provider)} refuses {incident.tenants} tenants ({incident.code}) "
            f"since {age(now - incident.since)}; none of them is called failed by it."
        )
    console.print(held_back(overview.limits))
    if waiting := overview.oldest_waiting:
        who = f"{plain(waiting.external_id)} ({waiting.provider})"
        console.print(f"Waiting the longest: {who}, {waiting.state}, for {age(now - waiting.since)}.")


def held_back(limits: LimitsView) -> str:
    """What the limits to the Management API hold back."""
    if limits.unknown_because:
        return f"Management API: whether calls are held back is unknown: {limits.unknown_because}."
    if not limits.reasons:
        return "Management API: no call is held back."
    return f"Management API: calls are held back: {'; '.join(limits.reasons)}."


def print_tenant(tenant: TenantDetail, console: Console, now: datetime) -> None:
    console.print(
        Text.assemble(plain(tenant.external_id), " ", plain(tenant.name), " is ", _state(tenant.state))
    )
    console.print(f"plan {tenant.plan}, signed up {age(now - tenant.created_at)} ago, id {tenant.id}")
    for connection in tenant.connections:
        _print_connection(connection, console, now)
    if (count := tenant.connection_count) > len(tenant.connections):
        console.print(f"\n{len(tenant.connections)} of {counted(count)} connections.")
    _print_history(tenant, console)
    _print_attempts(tenant, console)
    _print_events(tenant, console)


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


def counted(count: int) -> str:
    """A figure, which is the least that there are where the counting has ended."""
    return f"{count} or more" if count >= COUNTED_AT_MOST else str(count)


def next_action(step: str | None, due_at: datetime | None, now: datetime) -> str:
    """What happens next and when."""
    if step is None:
        return "nothing, until an event arrives"
    if due_at is None:
        return f"{step}, not scheduled"
    return f"{step} now" if due_at <= now else f"{step} in {age(due_at - now)}"


def _tenant_row(tenant: TenantView, now: datetime) -> list[str | Text]:
    connections = ", ".join(_named(c) + f": {c.state}" for c in tenant.connections[:CONNECTIONS_IN_A_LINE])
    if (further := tenant.connection_count - CONNECTIONS_IN_A_LINE) > 0:
        connections += f" and {further} more"
    problem = next((c.error.code for c in tenant.connections if c.error), "")
    signed_up = f"{age(now - tenant.created_at)} ago"
    return [
        plain(tenant.external_id),
        plain(tenant.name),
        _state(tenant.state),
        connections,
        signed_up,
        problem,
    ]


def _print_connection(connection: ConnectionView, console: Console, now: datetime) -> None:
    console.print(Text.assemble("\n", (_named(connection), "bold"), ": ", _state(connection.state)))
    console.print(
        f"  sync {connection.sync_id or 'not created yet'}, health {connection.health or 'unknown'}"
    )
    step = next_action(connection.next_step, connection.due_at, now)
    console.print(f"  next: {step}; attempts of this step so far: {connection.attempts}")
    if error := connection.error:
        console.print(Text.assemble("  ", (error.code, "red"), ": ", plain(error.message)))
        console.print(plain(f"  what to do: {error.advice or 'nothing is known to help'}"))
    if change := connection.change_error:
        console.print(Text.assemble("  last change: ", (change.code, "red"), ": ", plain(change.message)))
        console.print(plain(f"  what to do: {change.advice or 'nothing is known to help'}"))


def _print_history(tenant: TenantDetail, console: Console) -> None:
    table = _lines("when", "connection", "from", "to", "why")
    names = {connection.id: _named(connection) for connection in tenant.connections}
    for move in tenant.history:
        name = names.get(move.connection_id)
        table.add_row(_instant(move.at), name, move.from_state, move.to_state, plain(move.why))
    console.print("\nHistory")
    console.print(table)


def _print_attempts(tenant: TenantDetail, console: Console) -> None:
    table = _lines("when", "connection", "step", "try", "outcome", "took", "error")
    names = {connection.id: _named(connection) for connection in tenant.connections}
    for attempt in tenant.last_attempts:
        took = (attempt.finished_at - attempt.started_at).total_seconds()
        table.add_row(
            _instant(attempt.finished_at),
            names.get(attempt.connection_id),
            attempt.step,
            str(attempt.number),
            attempt.outcome,
            f"{took:.2f} s",
            plain(attempt.error_code),
        )
    console.print("\nLast attempts, newest first")
    console.print(table)


def _print_events(tenant: TenantDetail, console: Console) -> None:
    table = _lines("received", "stamped", "source", "event", "message id", "applied")
    for event in tenant.last_events:
        applied = "yes" if event.applied else f"no: {event.reason}"
        table.add_row(
            _instant(event.received_at),
            _instant(event.occurred_at),
            event.source,
            event.type,
            plain(event.message_id),
            applied,
        )
    console.print("\nLast events, newest first")
    console.print(table)


def _lines(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _named(connection: ConnectionView) -> str:
    return connection.provider if connection.slot == "default" else f"{connection.provider}/{connection.slot}"


def _state(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, ""))
