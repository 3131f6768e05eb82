"""Machines for whole runs, and the databases to run them on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from tests.e2e.harness import Machine

NewMachine = Callable[[], Machine]
NewDatabase = Callable[[str], str]


@pytest.fixture(scope="module")
def new_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewMachine]:
    """Gives machines that end with the module."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Machine(tmp_path_factory.mktemp("machine")))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Gives the URLs of empty databases of each kind."""
    if request.param == "sqlite":
        home = tmp_path_factory.mktemp("sqlite")
        return lambda name: f"sqlite:///{home}/{name}.db"
    server = make_url(request.getfixturevalue("postgresql_server")).set(drivername="postgresql")

    def create(name: str) -> str:
        unique = f"{name}_{uuid4().hex}"
        with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{unique}"')
        return server.set(database=unique).render_as_string(hide_password=False)

    return create
