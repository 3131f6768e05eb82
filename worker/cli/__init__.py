"""The `gangway` command. Each module holds the commands of one kind."""

import sys

import typer

from worker.cli import operate, services, stack
from worker.plans import PlansError
from worker.settings import SettingsError

app = typer.Typer(
    name="gangway",
    help="Provision customers' data syncs: from a signup webhook to a healthy, backfilled sync.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals may hold secrets
)

app.command()(stack.up)
app.command()(stack.demo)
app.command()(stack.engine)
app.command()(services.migrate)
app.command()(services.web)
app.command()(services.work)
app.command()(services.beat)
app.command()(services.flower)
app.command()(operate.status)
app.command()(operate.send)


def main() -> None:
    """Run a command. What an operator has to mend ends it in a few words, without a traceback."""
    try:
        app()
    except (PlansError, SettingsError) as exc:
        sys.exit(str(exc))
