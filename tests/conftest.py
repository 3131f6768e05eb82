"""The databases that tests run on: SQLite and a real PostgreSQL, migrated and empty."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from sqlalchemy import make_url

from foundation.database import Database
from foundation.migrations import upgrade
from models import MIGRATIONS
from tests.support.databases import postgresql, run_statement

settings.register_profile("shared machine", deadline=None)  # a slow moment of the machine is no failure
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a real PostgreSQL server that lives as long as the session."""
    with postgresql() as url:
        yield url


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
    run_statement(url, "TRUNCATE tenant, change_cursor CASCADE")


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
