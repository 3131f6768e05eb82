"""How processes start: what an operator has to mend is said in a few words, and others are ignored."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flower.command import apply_env_options
from tornado.options import options

from tests.worker.test_settings import CANARY, GOOD
from worker.cli.services import FLOWER_OPTIONS, _use_login

GANGWAY = (sys.executable, "-c", "from worker.cli import main; main()")


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GANGWAY_")}
    env = clean | {"PYTHONPATH": str(Path.cwd())} | environment
    return subprocess.run(
        [*GANGWAY, *arguments], cwd=home, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def bad_plans(tmp_path: Path) -> Path:
    path = tmp_path / "plans.toml"
    path.write_text("[plans")
    return path


MISTAKES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "missing plans": (["web"], {"GANGWAY_PLANS_FILE": "missing.toml"}, "missing.toml: No such file"),
    "bad plans": (["work"], {"GANGWAY_PLANS_FILE": "plans.toml"}, "plans.toml: not TOML"),
    "bad plans of a stack": (["up"], {"GANGWAY_PLANS_FILE": "plans.toml"}, "plans.toml: not TOML"),
    "bad setting of a stack": (["up"], {"GANGWAY_LEASE_S": "soon"}, "GANGWAY_LEASE_S"),
    "bad setting of its engine": (
        ["up"],
        {"GANGWAY_ENGINE_WORK_THREADS": "0"},
        "GANGWAY_ENGINE_WORK_THREADS",
    ),
    "no database there": (["migrate"], {"GANGWAY_DATABASE_URL": "sqlite:///missing/x.db"}, "cannot be used"),
    "port of a stack": (["up", "--web-port", "99999"], {}, "65535"),
    "port of a stack, as variable": (["up"], {"GANGWAY_REDIS_PORT": "99999"}, "65535"),
}


@pytest.mark.parametrize(("command", "environment", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_end_a_start_in_a_few_words(
    tmp_path: Path, bad_plans: Path, command: list[str], environment: dict[str, str], said: str
) -> None:
    """No traceback, no process that is restarted for ever, and no secret in what is said."""
    settings = {} if command[0] == "up" else GOOD
    arguments = [*command, "--ports", "auto"] if command == ["up"] else command

    done = run(tmp_path, *arguments, **{**settings, **environment})

    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert CANARY not in done.stderr + done.stdout


def test_flower_takes_no_options_from_other_peoples_variables() -> None:
    """Kubernetes sets FLOWER_PORT to an address for a service called flower."""
    environment = {"FLOWER_PORT": "tcp://10.43.0.7:5555", "FLOWER_UNAUTHENTICATED_API": "1", "HOME": "/"}

    _use_login(environment, "a-password-of-operators")

    assert environment == {"FLOWER_BASIC_AUTH": "operator:a-password-of-operators", "HOME": "/"}


def test_the_whole_password_opens_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower itself makes one login of it."""
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "")
    before = options.basic_auth

    _use_login(os.environ, "!\"#$%&'()*+-./;<=>?@[]^_`{|}~")  # all that a token may hold besides letters
    apply_env_options()
    found, options.basic_auth = options.basic_auth, before

    assert found == ["operator:!\"#$%&'()*+-./;<=>?@[]^_`{|}~"]


def test_flowers_memory_is_bounded() -> None:
    """It forgets workers that have gone and tasks of long ago, and knows these options."""
    names = {option.lstrip("-").partition("=")[0] for option in FLOWER_OPTIONS}

    assert {"max_tasks", "max_workers", "purge_offline_workers"} <= names
    assert all(name in options for name in names)
