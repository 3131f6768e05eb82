"""Machines for whole runs, and the databases to run them on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.harness import Machine

NewMachine = Callable[[], Machine]


@pytest.fixture(scope="module")
def new_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewMachine]:
    """Gives machines that end with the module."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Machine(tmp_path_factory.mktemp("machine")))
