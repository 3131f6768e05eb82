"""What the environment names is not started."""

import pytest

from worker.stack.errors import StackError
from worker.stack.scope import Scope, engine_scope, stack_scope


def test_by_default_everything_runs() -> None:
    """With nothing set, the machine provides all of it."""
    assert stack_scope({}) == Scope(worker=True, engine=True, redis=True)


def test_a_given_broker_is_used_by_both() -> None:
    """A Redis that the operator names serves the engine too, so none is started."""
    assert not stack_scope({"GANGWAY_BROKER_URL": "redis://broker/0"}).redis


def test_a_given_api_replaces_the_engine() -> None:
    """With another Management API there is no engine, but the worker's broker remains."""
    scope = stack_scope({"GANGWAY_API_URL": "https://api.example", "GANGWAY_API_TOKEN": "t" * 16})

    assert scope == Scope(worker=True, engine=False, redis=True)


@pytest.mark.parametrize("name", ["GANGWAY_API_URL", "GANGWAY_ENGINE_TOKENS"])
def test_an_api_without_its_token_is_refused(name: str) -> None:
    """A token of our own making would be refused by an API that knows other ones."""
    with pytest.raises(StackError, match=rf"{name} is set: set GANGWAY_API_TOKEN"):
        stack_scope({name: "https://api.example"})


def test_the_engine_alone_brings_its_broker() -> None:
    """`gangway engine` starts a Redis unless it is given one."""
    assert engine_scope({}) == Scope(worker=False, engine=True, redis=True)
    assert not engine_scope({"GANGWAY_ENGINE_BROKER_URL": "redis://broker/1"}).redis
