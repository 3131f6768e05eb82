"""What an operator asks: how do things stand, and what happens when I send this?"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sqlmodel import Session

    from worker.cli.needed import StatusSettings


DataDir = Annotated[Path | None, typer.Option(help="Of the stack on this machine.", show_default=".gangway")]


def status(
    external_id: Annotated[str | None, typer.Argument(help="One tenant, in detail.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many tenants to list.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """Show the tenants, or one of them, straight from the database; the broker may be down."""
    from worker.cli.needed import StatusSettings

    settings = StatusSettings.load(data_dir)
    if external_id is None:
        _show_overview(settings, limit=limit, as_json=as_json)
    else:
        _show_tenant(settings, external_id, as_json=as_json)


def send(
    file: Annotated[str, typer.Argument(help="The event's JSON body; - reads standard input.")],
    source: Annotated[str, typer.Option(help="Whose webhook secret signs it.")] = "app",
    url: Annotated[str | None, typer.Option(help="Base URL of the intake; by default the one here.")] = None,
    message_id: Annotated[str | None, typer.Option("--id", help="Sent twice, it counts once.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Sign an event, post it to the intake and print the answer."""
    from worker.cli.sending import SendError, local_intake, post_event, secret_of

    body = sys.stdin.buffer.read() if file == "-" else _content_of(Path(file))
    try:
        answer = post_event(
            body,
            source=source,
            secret=secret_of(source, data_dir),
            base_url=url or local_intake(data_dir),
            message_id=message_id,
        )
    except SendError as exc:
        sys.exit(str(exc))
    typer.echo(answer.text)
    if not answer.is_success:
        sys.exit(f"the intake answered {answer.status_code}")


def _show_overview(settings: "StatusSettings", *, limit: int, as_json: bool) -> None:
    from foundation.database import utc_now
    from worker.cli.limits import read_limits
    from worker.cli.overview import overview
    from worker.cli.tables import print_overview

    with _database(settings) as session:
        view = overview(session, limit=limit)
    view.limits = read_limits(settings)
    if as_json:
        typer.echo(view.model_dump_json(indent=2))
    else:
        print_overview(view, _console(), utc_now())


def _show_tenant(settings: "StatusSettings", external_id: str, *, as_json: bool) -> None:
    from foundation.database import utc_now
    from worker.cli.overview import tenant_detail
    from worker.cli.tables import print_tenant

    with _database(settings) as session:
        view = tenant_detail(session, external_id)
    if view is None:
        sys.exit(f"no tenant has the external_id {external_id!r}; `gangway status` lists them")
    if as_json:
        typer.echo(view.model_dump_json(indent=2))
    else:
        print_tenant(view, _console(), utc_now())


def _console() -> Console:
    """As wide as the terminal; wide enough for a line per row where there is none."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=200)


@contextmanager
def _database(settings: "StatusSettings") -> "Iterator[Session]":
    """A session that only reads; says so plainly when there is nothing to read."""
    from sqlalchemy.exc import DBAPIError

    from foundation.database import Database

    database = Database(settings.database_url.get_secret_value())
    try:
        with database.read() as session:
            yield session
    except DBAPIError as exc:
        sys.exit(f"the database cannot be read ({exc.orig}). Has `gangway migrate` or `gangway up` been run?")
    finally:
        database.dispose()


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        sys.exit(f"{path}: {exc.strerror}")
