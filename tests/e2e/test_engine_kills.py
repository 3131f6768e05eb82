"""The engine's processes, killed while they fill a stream; benchmarks/kills.py does it at length."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.vault import generate_key
from tests.e2e.chaos import Plan, World
from tests.e2e.conftest import NewMachine
from tests.e2e.harness import clean_environment

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures

PLAN = Plan(records=3_000, syncs=5, kills=4, kills_within_s=5, changes=50, workers=2, seed=21)
STOPS_WITHIN_S = 5.0


def test_kills_lose_nothing_and_double_nothing(new_machine: NewMachine) -> None:
    """Stream and consumer, itself killed, end as the upstream; no rate limit breaks; all end when asked."""
    machine = new_machine()
    world = World(machine, PLAN, f"sqlite:///{machine.home}/engine.db")

    outcome = world.run()
    took = [process.terminate() for process in (*world.engine.workers, world.engine.web)]

    log.info("%s; ended after %s s", outcome, took)
    assert outcome.faults == []
    assert outcome.unfinished_syncs_at_last_kill > 0
    assert max(took) < STOPS_WITHIN_S


def test_an_old_schema_is_refused(tmp_path: Path) -> None:
    """Whoever deploys is told what to run first."""
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/engine.db",
        "BROKER_URL": "redis://127.0.0.1:1/0",
        "VAULT_KEYS": generate_key(),
    }
    environment = clean_environment() | {f"GANGWAY_ENGINE_{name}": value for name, value in settings.items()}

    refused = subprocess.run(
        (sys.executable, "-m", "engine", "web"), env=environment, capture_output=True, check=False
    )

    assert refused.returncode == 2
    assert b"migrate" in refused.stderr
