"""What would fail at every start is refused before any process is started."""

from collections.abc import Callable

import pytest

from worker.stack.checks import checked
from worker.stack.configuration import Configuration
from worker.stack.errors import StackError

Configured = Callable[..., Configuration]


def test_a_stack_without_settings_of_the_operator_may_start(
    configured: Configured, no_settings: None
) -> None:
    """What the stack makes for itself is accepted by its processes."""
    assert checked(configured()) == []


MISTAKES = {
    "GANGWAY_PLANS_FILE": "missing.toml",
    "GANGWAY_BROKER_URL": "amqp://somewhere//",
    "GANGWAY_OPERATOR_TOKEN": "hunter2-hunter2,hunter2-hunter2",
    "GANGWAY_API_TOKEN": "hunter2-hunter2,hunter2-hunter2",
    "GANGWAY_ENGINE_DATABASE_URL": "mysql://u:hunter2@h/name",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(configured: Configured, no_settings: None, name: str) -> None:
    """In the worker's part or in the engine's, without the value."""
    with pytest.raises(StackError) as refused:
        checked(configured(environment={name: MISTAKES[name]}))

    assert (MISTAKES[name] if name == "GANGWAY_PLANS_FILE" else name) in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_misspelt_settings_are_told(configured: Configured, no_settings: None) -> None:
    """Of either part, with what was probably meant."""
    environment = {"GANGWAY_LEASES": "3", "GANGWAY_ENGINE_TOKEN": "x", "GANGWAY_WEB_PORT": "8600"}

    assert checked(configured(environment=environment)) == [
        "Warning: GANGWAY_LEASES is not a setting: did you mean GANGWAY_LEASE_S?",
        "Warning: GANGWAY_ENGINE_TOKEN is not a setting: did you mean GANGWAY_ENGINE_TOKENS?",
    ]
