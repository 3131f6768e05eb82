"""The processes of the worker, each in the foreground: for an orchestrator, or for `gangway up`.

Imports wait until a command needs them, so that every command starts, and can be interrupted, at once.
"""

import os
import socket
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import structlog
import typer

if TYPE_CHECKING:
    from worker.settings import Settings

FLOWER_OPTIONS: Final = (
    "--max_tasks=10000",
    "--max_workers=500",
    "--purge_offline_workers=300",  # each start of a worker is a new one to Flower: its name holds the pid
    "--logging=warning",
)
log = structlog.get_logger(__name__)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]


def migrate() -> None:
    """Bring the database schema up to date. Safe to run at any time, by any number of processes."""
    from foundation.database import Database
    from foundation.migrations import upgrade
    from models import MIGRATIONS

    current = _prepared("migrate", needs_schema=False, needs_plans=False)
    database = Database(current.database_url.get_secret_value())
    with _told_plainly():
        upgrade(database, MIGRATIONS)
    database.dispose()
    typer.echo("The database schema is up to date.")


def web(host: Host = "127.0.0.1", port: Port = 8600) -> None:
    """Receive signup webhooks and answer where tenants stand."""
    from foundation.queue import Role
    from foundation.server import Server
    from worker.app import configure
    from worker.web import create_app

    current = _prepared("web")
    app = create_app(current, configure(current, Role.PUBLISHER))
    Server(app, host=host, port=port, proxy_headers=False).run()


def work(
    queues: Annotated[str, typer.Option(help="Which groups of queues to work on, comma-separated.")] = (
        "onboarding,polling,maintenance"
    ),
    concurrency: Annotated[int, typer.Option(min=1, max=100, help="Tasks at once (threads).")] = 8,
    name: Annotated[str, typer.Option(help="Name of this worker, unique per host.")] = "worker",
) -> None:
    """Do the work: capture credentials, create syncs, poll them."""
    from foundation.queue import Role, run_worker
    from worker.app import GROUPS, configure
    from worker.runtime import close_runtime
    from worker.watch import watch_progress

    current = _prepared("worker")
    wanted = [queue.strip() for queue in queues.split(",")]
    unknown = set(wanted) - set(GROUPS)
    if unknown:
        known = ", ".join(sorted(GROUPS))
        raise typer.BadParameter(f"no queue {', '.join(sorted(unknown))}; there are: {known}")
    app = configure(current, Role.CONSUMER)
    tasks = [task for group in wanted for task in GROUPS[group]]
    watch_progress(current, app, tasks)
    node = f"{name}-{os.getpid()}@{socket.gethostname()}"
    threads = ["--pool=threads", f"--concurrency={concurrency}"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel=INFO"]
    arguments = ["worker", *threads, *quiet, f"--queues={','.join(tasks)}", f"--hostname={node}"]
    try:
        status = run_worker(app, ["--quiet", *arguments])
    finally:
        close_runtime()
    sys.exit(status)


def beat() -> None:
    """Send the periodic sweep. Any number may run: a sweep more does no harm."""
    from foundation.queue import Role
    from worker.app import configure

    current = _prepared("beat", needs_plans=False)
    app = configure(current, Role.CONSUMER)
    # in memory: the timetable is in the code, and a file would be one more lock to leave behind
    app.start(["--quiet", "beat", "--scheduler=celery.beat:Scheduler", "--loglevel=WARNING", "--pidfile="])


def flower(host: Host = "127.0.0.1", port: Port = 5555) -> None:
    """Show the queue in Flower, behind a login: user `operator`, password the operator token."""
    from foundation.queue import Role
    from worker.app import configure

    current = _prepared("flower", needs_plans=False)
    _use_login(os.environ, current.operator_token.get_secret_value())
    app = configure(current, Role.CONSUMER)
    app.start(["flower", f"--address={host}", f"--port={port}", *FLOWER_OPTIONS])


def _use_login(environment: MutableMapping[str, str], password: str) -> None:
    """Give Flower its login by the environment, since every user of the machine can read a command line.

    Flower takes options from all variables that begin with its name. Kubernetes sets some of that name for
    any service called `flower`, so there are none but ours.
    """
    for name in [name for name in environment if name.startswith("FLOWER_")]:
        del environment[name]
    environment["FLOWER_BASIC_AUTH"] = f"operator:{password}"


def _prepared(service: str, *, needs_schema: bool = True, needs_plans: bool = True) -> "Settings":
    """Read the settings, set up the logs, and refuse to start where the work could not be done."""
    from foundation.environment import warning_of
    from foundation.logs import configure_logs
    from worker.plans import Plans
    from worker.settings import misspelt_variables, settings

    current = settings()
    configure_logs(current.log_level, service=service)
    for name, nearest in misspelt_variables(os.environ).items():
        log.warning("setting.unknown", name=name, reason=warning_of(name, nearest))
    if needs_plans:
        Plans.load(current.plans_file)
    if needs_schema:
        _check_schema(current)
    return current


@contextmanager
def _told_plainly() -> Iterator[None]:
    """End the process in one sentence if the database cannot be reached; a traceback would hide it."""
    from sqlalchemy.exc import OperationalError

    from worker.redaction import redact

    try:
        yield
    except OperationalError as exc:
        sys.exit(f"The database cannot be used: {redact(str(exc.orig))}")


def _check_schema(current: "Settings") -> None:
    from foundation.database import Database
    from foundation.migrations import is_current
    from models import MIGRATIONS

    database = Database(current.database_url.get_secret_value())
    with _told_plainly():
        current_schema = is_current(database, MIGRATIONS)
    database.dispose()
    if not current_schema:
        sys.exit("The database schema is not up to date: run `gangway migrate` first.")
