"""How a worker process ends."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from foundation.vault import generate_key

ROOT: Final = Path(__file__).parents[2]
FAILING: Final = """
from celery import Celery, bootsteps
from engine import cli, work

class Fails(bootsteps.StartStopStep):
    def start(self, _worker):
        raise RuntimeError("there is no going on")

def create(*_):
    app = Celery(broker="memory://")
    app.steps["worker"].add(Fails)
    return app

work.create_celery = create
cli.main()
"""


def test_a_failed_worker_says_so(sqlite_template: Path, tmp_path: Path) -> None:
    """Whoever restarts what fails sees that it did."""
    shutil.copy(sqlite_template, tmp_path / "engine.db")
    environment = {
        "GANGWAY_ENGINE_DATABASE_URL": f"sqlite:///{tmp_path / 'engine.db'}",
        "GANGWAY_ENGINE_BROKER_URL": "redis://127.0.0.1:1/0",
        "GANGWAY_ENGINE_VAULT_KEYS": generate_key(),
    }

    ended = subprocess.run(
        (sys.executable, "-c", FAILING, "work"),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )

    assert b"there is no going on" in ended.stdout + ended.stderr
    assert ended.returncode == 1
