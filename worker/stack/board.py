"""Where everything is: shown once a stack is ready."""

from rich.console import Console
from rich.table import Table

from worker.stack.configuration import Configuration

Address = tuple[str, str, str]
"""What, where, and how to get in."""


def show(config: Configuration, console: Console) -> None:
    """Print all addresses; of secrets only where they are."""
    if console.is_terminal:
        console.print(_table(addresses(config)))
    else:
        for what, where, how in addresses(config):
            console.print(f"{what}: {where} ({how})")
    console.print(f"Secrets: {config.env_file} (mode 0600). Logs: {config.logs}")


def addresses(config: Configuration) -> list[Address]:
    rows: list[Address] = []
    if config.scope.worker:
        rows += _worker_addresses(config)
    if config.scope.engine:
        url = config.url_of("engine")
        rows.append(("Management API", f"{url}/v1", "Bearer GANGWAY_API_TOKEN"))
        rows.append(("Management API docs", f"{url}/docs", "open"))
    elif config.scope.worker:
        rows.append(
            ("Management API", config.value_of("GANGWAY_API_URL"), "not started here: set from outside")
        )
    return rows


def _worker_addresses(config: Configuration) -> list[Address]:
    web = config.url_of("web")
    return [
        ("webhooks", f"{web}/webhooks/app", "signed; try gangway send"),
        ("status", f"{web}/v1/tenants", "Bearer GANGWAY_OPERATOR_TOKEN; or gangway status"),
        ("status API docs", f"{web}/docs", "open"),
        ("Flower", config.url_of("flower"), "user operator, password GANGWAY_OPERATOR_TOKEN"),
    ]


def _table(rows: list[Address]) -> Table:
    table = Table(title="Gangway is up", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("where", no_wrap=True)  # an address in two lines cannot be clicked or copied
    table.add_column("how")
    for row in rows:
        table.add_row(*row)
    return table
