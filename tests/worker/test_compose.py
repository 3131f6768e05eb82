"""docker-compose.yml cannot be run by the tests, so at least it may not name what does not exist."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.main import get_command

from engine.cli import app as engine_app
from engine.settings import Settings as EngineSettings
from worker.app import GROUPS
from worker.cli import app as gangway_app
from worker.settings import Settings

FILE: Final = Path(__file__).parents[2] / "docker-compose.yml"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(FILE.read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = sorted(name for name, service in SERVICES.items() if service["image"].startswith("gangway:"))
VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?P<rule>:[?-])?")
NOT_SECRET: Final = {"GANGWAY_API_URL", "GANGWAY_CREATE_SETTLE_S"}


def parsed(command: list[str]) -> dict[str, Any]:
    """What the real command line makes of it; raises on an unknown command or option."""
    is_engine = command[:3] == ["python", "-m", "engine"]
    name, *options = command[3:] if is_engine else command[1:]
    group: Any = get_command(engine_app if is_engine else gangway_app)
    params: dict[str, Any] = group.commands[name].make_context(name, options).params
    return params


def settings_of(name: str) -> set[str]:
    engine = name.startswith("engine-")
    prefix, fields = ("GANGWAY_ENGINE_", EngineSettings) if engine else ("GANGWAY_", Settings)
    return {prefix + field.upper() for field in fields.model_fields}


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str) -> None:
    """The command and its options are ones that our command line accepts."""
    parsed(SERVICES[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists(name: str) -> None:
    """A variable is a setting of the service that gets it, and the required ones are all there."""
    given = set(SERVICES[name]["environment"])
    cls = EngineSettings if name.startswith("engine-") else Settings
    prefix = cls.model_config["env_prefix"]
    required = {prefix + field.upper() for field, info in cls.model_fields.items() if info.is_required()}

    assert given <= settings_of(name)
    assert required <= given


def test_every_group_of_queues_is_worked_on() -> None:
    """The workers together consume every queue that a task is routed to."""
    worked = {
        queue
        for name in OURS
        if name.startswith("worker-")
        for queue in parsed(SERVICES[name]["command"])["queues"].split(",")
    }

    assert worked == set(GROUPS)


def test_every_secret_is_required() -> None:
    """Whatever is not written here has to be given, or compose refuses to start."""
    for found in VARIABLE.finditer(re.sub(r"(?m)^\s*#.*$", "", FILE.read_text())):
        assert found["rule"] == ":?" or found["name"] in NOT_SECRET, found["name"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_ends_and_restarts(name: str) -> None:
    """Each has a time to end in, a restart rule, a pinned image, and publishes on loopback at most."""
    service = SERVICES[name]

    assert service["stop_grace_period"]
    assert service["restart"] == ("on-failure" if name.endswith("migrate") else "unless-stopped")
    assert re.search(r":\d", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_dependency_can_be_met(name: str) -> None:
    """What has to be healthy has a health check, and what has to complete is a migration."""
    for other, needs in SERVICES[name].get("depends_on", {}).items():
        if needs["condition"] == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"]
        else:
            assert other.endswith("migrate")
