"""Where everything is: the table shown once a stack is ready."""

from rich.console import Console
from rich.table import Table

from worker.stack.configuration import Configuration


def show(config: Configuration, console: Console) -> None:
    """Print one table of addresses; of secrets only where they are."""
    table = Table(title="Gangway is up", title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("where", overflow="fold")
    table.add_column("how", overflow="fold")
    for row in addresses(config):
        table.add_row(*row)
    console.print(table)
    console.print("Ctrl-C ends everything; the next start continues with the same state.")


def addresses(config: Configuration) -> list[tuple[str, str, str]]:
    """What, where, and how to get in."""
    rows: list[tuple[str, str, str]] = []
    if config.scope.worker:
        rows += _worker_addresses(config)
    if config.scope.engine:
        url = config.url_of("engine")
        rows.append(("Management API", f"{url}/v1", "Bearer GANGWAY_API_TOKEN"))
        rows.append(("Management API, docs", f"{url}/docs", ""))
    elif config.scope.worker:
        rows.append(
            ("Management API", config.value_of("GANGWAY_API_URL"), "elsewhere, as GANGWAY_API_URL says")
        )
    return [
        *rows,
        ("secrets", str(config.env_file), "mode 0600"),
        ("logs", str(config.logs), "a file per process"),
    ]


def _worker_addresses(config: Configuration) -> list[tuple[str, str, str]]:
    web = config.url_of("web")
    return [
        ("webhooks", f"{web}/webhooks/app", "signed with GANGWAY_WEBHOOK_SECRETS; try `gangway send`"),
        ("status", f"{web}/v1/tenants", "Bearer GANGWAY_OPERATOR_TOKEN; or `gangway status`"),
        ("API docs", f"{web}/docs", ""),
        ("Flower", config.url_of("flower"), "user operator, password GANGWAY_OPERATOR_TOKEN"),
    ]
