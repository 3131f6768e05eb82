"""`make clean` removes what can be made again, and no data."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_clean_keeps_data(tmp_path: Path) -> None:
    """`gangway up` keeps its vault keys beside the demo: without them no secret opens again."""
    shutil.copy(MAKEFILE, tmp_path)
    kept = [tmp_path / ".gangway" / "stack.env", tmp_path / ".gangway" / "gangway.db"]
    made = [tmp_path / ".gangway" / "demo" / "stack.env", tmp_path / ".mypy_cache" / "x"]
    for path in (*kept, *made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True, timeout=30)

    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in made)
