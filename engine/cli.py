"""The engine's commands: to migrate, serve and work, and for operators."""

import os
import threading
from typing import Annotated

import structlog
import typer
from sqlalchemy.exc import OperationalError

from engine.access import AccessError
from engine.operators import organisations, tokens
from engine.schema import SchemaError, migrate, open_database
from engine.settings import Settings, SettingsError, misspelt_variables
from engine.sync_changes import restart_followers
from foundation.database import Database
from foundation.environment import warning_of
from foundation.logs import configure_logs
from foundation.secret_shapes import MASK, SECRET_VALUES
from foundation.server import Server
from foundation.vault import VaultError

log = structlog.get_logger(__name__)

app = typer.Typer(help="The Management API as a service of our own.", no_args_is_help=True)
app.add_typer(organisations, name="organisation")
app.add_typer(tokens, name="token")
LONGEST_ANSWER_S = 1


@app.command("migrate")
def migrate_command() -> None:
    """Bring the database schema up to date."""
    database = Database(_settings().database_url.get_secret_value())
    migrate(database)
    database.dispose()


@app.command()
def web(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=1, max=65_535)] = 8600,
) -> None:
    """Serve the API."""
    from engine.api import create_app  # each command imports what it needs: half a second per start

    settings = _settings()
    open_database(settings).dispose()
    stopping = threading.Event()
    server = Server(
        create_app(settings, stopping=stopping),
        host=host,
        port=port,
        grace_s=LONGEST_ANSWER_S,
        on_signal=stopping.set,  # so that long polls answer at once
    )
    server.run()


@app.command("work")
def work_command() -> None:
    """Read what is due, until told to stop."""
    from engine.work import work

    raise typer.Exit(work(_settings()))


@app.command("reseal")
def reseal_command() -> None:
    """Seal with the first vault key what others have sealed, so that they may go; says how many values."""
    from engine.resealing import reseal

    settings = _settings()
    database = open_database(settings)
    sealed, lost = reseal(database, settings.vault())
    database.dispose()
    typer.echo(f"{sealed} sealed again")
    if lost:
        typer.echo(f"engine: {lost} open with none of the vault keys", err=True)
        raise typer.Exit(1)


@app.command("restart-followers")
def restart_followers_command() -> None:
    """Have all who follow the changes of syncs begin again; to be run after a backup has been restored."""
    database = open_database(_settings())
    restart_followers(database)
    database.dispose()


def main() -> None:
    """Run a command; what an operator has to mend is one line, not a traceback."""
    try:
        app()
    except (AccessError, SchemaError, SettingsError, VaultError) as exc:
        typer.echo(f"engine: {exc}", err=True)
        raise SystemExit(2) from None
    except OperationalError as exc:
        words = SECRET_VALUES.sub(MASK, str(exc.orig))
        typer.echo(f"engine: the database cannot be used: {words}", err=True)
        raise SystemExit(2) from None


def _settings() -> Settings:
    settings = Settings.from_environment()
    configure_logs(settings.log_level, service="engine")
    for name, nearest in misspelt_variables(os.environ).items():
        log.warning("setting.unknown", name=name, reason=warning_of(name, nearest))
    settings.vault()
    return settings
