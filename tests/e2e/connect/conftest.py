"""One stage for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.e2e.connect.agent import HttpAgent
from tests.e2e.connect.stage import Stage


@pytest.fixture(scope="module")
def stage(new_machine) -> Iterator[Stage]:
    with Stage(new_machine()) as stage:
        yield stage


@pytest.fixture
def agent() -> Iterator[HttpAgent]:
    with HttpAgent() as agent:
        yield agent
