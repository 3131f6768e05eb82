"""Machines for whole runs, and the databases to run them on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from tests.e2e.harness import Machine

NewMachine = Callable[[], Machine]
NewDatabaseOf = Callable[[str], str]
LAST_RESORT_S = 900


@pytest.fixture(scope="module")
def new_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewMachine]:
    """Gives machines that end with the module."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Machine(tmp_path_factory.mktemp("machine")))


@pytest.fixture(scope="session")
def new_database_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewDatabaseOf:
    """Gives the URL of an empty database of a kind."""

    def create(kind: str) -> str:
        unique = f"empty_{uuid4().hex}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/{unique}.db"
        server = make_url(request.getfixturevalue("postgresql_server")).set(drivername="postgresql")
        with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{unique}"')
        return server.set(database=unique).render_as_string(hide_password=False)

    return create


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A run that moves may take its time: the tests themselves give up on one that does not."""
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LAST_RESORT_S))
