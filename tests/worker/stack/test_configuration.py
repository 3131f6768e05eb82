"""Secrets are made once, what the operator set wins, and each service sees only its own."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from engine.settings import Settings as EngineSettings
from foundation.vault import Vault
from worker.settings import Settings
from worker.stack.board import show
from worker.stack.configuration import Configuration, forget
from worker.stack.envfile import read_env_file, write_env_file
from worker.stack.scope import stack_scope
from worker.stack.services import processes

Configured = Callable[..., Configuration]


@pytest.mark.usefixtures("no_settings")
def test_both_services_accept_it(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file alone configures the worker, the engine's environment the engine."""
    config = configured()
    write_env_file(config.env_file, config.kept)

    worker = Settings.load(tmp_path)
    for name, value in config.engine_env.items():
        monkeypatch.setenv(name, value)
    engine = EngineSettings.from_environment()

    assert worker.api_token in engine.tokens
    assert worker.api_url == config.url_of("engine")
    assert worker.create_settle_s > engine.request_deadline_s
    assert worker.broker_url == engine.broker_url  # Flower looks at one database and shows both
    assert set(worker.webhook_secrets) == {"app"}


def test_secrets_survive_the_next_start(configured: Configured) -> None:
    """A second start finds the same secrets, ports and databases."""
    first = configured()
    write_env_file(first.env_file, first.kept)

    second = configured(remembered=read_env_file(first.env_file))

    assert second.own == first.own


def test_two_directories_share_no_secret(configured: Configured) -> None:
    """Each data directory has secrets of its own."""
    secrets = [name for name in configured().own if name.endswith(("TOKEN", "KEYS", "PASSWORD"))]
    one, other = configured().own, configured().own

    assert len(secrets) == 5
    assert all(one[name] != other[name] for name in secrets)


def test_what_the_operator_set_wins_and_is_not_copied(configured: Configured) -> None:
    """A value from the environment reaches the processes but never the file, under no name."""
    environment = {"GANGWAY_BROKER_URL": "redis://:s3cret@broker/0", "GANGWAY_API_TOKEN": "t" * 16}

    config = configured(scope=stack_scope(environment), environment=environment)

    assert config.worker_env["GANGWAY_BROKER_URL"] == environment["GANGWAY_BROKER_URL"]
    assert config.engine_env["GANGWAY_ENGINE_BROKER_URL"] == environment["GANGWAY_BROKER_URL"]
    assert config.engine_env["GANGWAY_ENGINE_TOKENS"] == environment["GANGWAY_API_TOKEN"]
    assert not set(config.kept.values()) & set(environment.values())


def test_each_service_sees_only_its_own_secrets(configured: Configured) -> None:
    """The engine cannot open the worker's secrets, nor the worker the engine's, nor Redis any."""
    config = configured(environment={"PATH": "/bin"})

    assert not [n for n in config.worker_env if n.startswith("GANGWAY_ENGINE_VAULT")]
    assert not [n for n in config.engine_env if n in {"GANGWAY_VAULT_KEYS", "GANGWAY_WEBHOOK_SECRETS"}]
    assert not [n for n in config.plain_env if n.startswith("GANGWAY_")]
    assert config.plain_env["PATH"] == "/bin"


@pytest.mark.parametrize(
    ("environment", "exempt"), [({}, "127.0.0.1"), ({"NO_PROXY": "intern"}, "intern,127.0.0.1")]
)
def test_no_proxy_stands_between_the_processes(
    configured: Configured, environment: dict[str, str], exempt: str
) -> None:
    """Where the way out is a proxy, the processes still reach each other directly."""
    config = configured(environment=environment)

    for env in (config.worker_env, config.engine_env):
        assert env["no_proxy"] == env["NO_PROXY"] == exempt


def test_a_longer_deadline_means_a_longer_settling(configured: Configured) -> None:
    """The worker waits longer than the engine may still take to commit a lost request."""
    config = configured(environment={"GANGWAY_ENGINE_REQUEST_DEADLINE_S": "30"})

    assert float(config.own["GANGWAY_CREATE_SETTLE_S"]) > 30


def test_a_stranger_api_keeps_the_cautious_settling(configured: Configured) -> None:
    """The settling time measured for our engine is not used for another API."""
    environment = {"GANGWAY_API_URL": "https://api.example", "GANGWAY_API_TOKEN": "t" * 16}
    scope = stack_scope(environment)

    config = configured(scope=scope, environment=environment, remembered=dict(configured().own))

    assert "GANGWAY_CREATE_SETTLE_S" not in config.worker_env


def test_no_secret_is_an_argument(configured: Configured) -> None:
    """Every user of the machine can read a process's arguments, so they hold no secret."""
    config = configured()
    names = ("TOKEN", "TOKENS", "KEYS", "PASSWORD")
    secrets = [value for name, value in config.own.items() if name.endswith(names)]
    secrets += json.loads(config.own["GANGWAY_WEBHOOK_SECRETS"])["app"]

    for spec in processes(config):
        assert not any(secret in argument for secret in secrets for argument in spec.argv)
        assert not any(secret in repr(spec) for secret in secrets)


def test_the_board_shows_no_secret(configured: Configured) -> None:
    """The table of addresses says where secrets are, not what they are."""
    config = configured()

    shown_on = StringIO()

    show(config, Console(file=shown_on, width=200))

    shown = shown_on.getvalue()
    assert config.url_of("web") in shown
    assert str(config.env_file) in shown
    assert config.own["GANGWAY_OPERATOR_TOKEN"] not in shown


def test_generated_keys_are_usable(configured: Configured) -> None:
    """A vault opened with the generated keys works."""
    own = configured().own

    for name in ("GANGWAY_VAULT_KEYS", "GANGWAY_ENGINE_VAULT_KEYS"):
        vault = Vault.from_text(own[name])
        assert vault.open(vault.seal(b"secret", context="t"), context="t") == b"secret"


def test_starting_afresh_touches_nothing_else(tmp_path: Path, configured: Configured) -> None:
    """Only what a stack makes is removed, so that a wrong --data-dir costs nobody a file."""
    write_env_file(configured().env_file, configured().kept)
    made = [
        tmp_path / name for name in ("gangway.db", "gangway.db-wal", "engine.db", "logs/web.log", "redis/aof")
    ]
    foreign = tmp_path / "thesis.txt"
    for path in [*made, foreign]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("words")

    forget(tmp_path)

    assert list(tmp_path.iterdir()) == [foreign]
