"""What an operator asks: how things stand, and what happens when I send this."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def status(
    external_id: Annotated[str | None, typer.Argument(help="One tenant, in detail.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many tenants to list.")] = 50,
) -> None:
    """Show the tenants, or one of them, straight from the database; the broker may be down."""
    from worker.cli.overview import show_tenant, show_tenants

    if external_id is None:
        show_tenants(limit=limit, as_json=as_json)
    elif not show_tenant(external_id, as_json=as_json):
        sys.exit(f"no tenant has the external_id {external_id!r}; `gangway status` lists them")


def send(
    file: Annotated[str, typer.Argument(help="The event's JSON body; - reads standard input.")],
    source: Annotated[str, typer.Option(help="Whose webhook secret signs it.")] = "app",
    url: Annotated[str | None, typer.Option(help="Base URL of the intake; by default the one here.")] = None,
    message_id: Annotated[str | None, typer.Option("--id", help="Sent twice, it counts once.")] = None,
) -> None:
    """Sign an event, post it to the intake and print the answer."""
    from worker.cli.sending import SendError, post_event

    body = sys.stdin.buffer.read() if file == "-" else _bytes_of(Path(file))
    try:
        answer = post_event(body, source=source, base_url=url, message_id=message_id)
    except SendError as exc:
        sys.exit(str(exc))
    print(answer.text)  # noqa: T201  # the answer is this command's output
    sys.exit(0 if answer.is_success else 1)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        sys.exit(f"{path}: {exc.strerror}")
