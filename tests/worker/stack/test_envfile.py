"""The file is private, whole, and gives back what was put in."""

import stat
from pathlib import Path

import pytest

from worker.settings import STACK_FILE
from worker.stack.envfile import read_env_file, write_env_file


@pytest.mark.parametrize("value", ["a b", "it's", 'say "hi"', "back\\slash", "# no", "${HOME}", "ü"])
def test_values_come_back(tmp_path: Path, value: str) -> None:
    """Any one-line value survives the way through the file."""
    path = tmp_path / STACK_FILE

    write_env_file(path, {"GANGWAY_X": value})

    assert read_env_file(path) == {"GANGWAY_X": value}


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """The file has mode 0600, also when it replaces one that was open to all."""
    path = tmp_path / STACK_FILE
    path.write_text("")
    path.chmod(0o644)

    write_env_file(path, {"GANGWAY_X": "1"})

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [STACK_FILE]
