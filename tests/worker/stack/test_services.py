"""Which processes there are, and in which order."""

from collections.abc import Callable

from worker.stack.configuration import Configuration
from worker.stack.scope import stack_scope
from worker.stack.services import processes

Configured = Callable[..., Configuration]


def test_every_service_is_there(configured: Configured) -> None:
    """The whole stack is eight lasting processes and two migrations."""
    specs = processes(configured())

    assert [spec.name for spec in specs if spec.runs_once] == ["engine-migrate", "migrate"]
    assert {spec.name for spec in specs if not spec.runs_once} == {
        *("redis", "engine-web", "engine-work"),
        *("web", "worker-onboarding", "worker-polling", "beat", "flower"),
    }


def test_the_broker_ends_last(configured: Configured) -> None:
    """Whatever lasts comes after the broker, and so ends before it."""
    specs = processes(configured())

    assert all("redis" in spec.after for spec in specs if not spec.runs_once and spec.name != "redis")


def test_what_is_elsewhere_is_not_started(configured: Configured) -> None:
    """Without engine and broker only the worker's own processes run."""
    environment = {
        "GANGWAY_BROKER_URL": "redis://broker/0",
        "GANGWAY_API_URL": "https://api.example",
        "GANGWAY_API_TOKEN": "t" * 16,
    }

    config = configured(scope=stack_scope(environment), environment=environment)

    assert not [s.name for s in processes(config) if s.name == "redis" or s.name.startswith("engine")]
