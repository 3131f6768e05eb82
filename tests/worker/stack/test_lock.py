"""One stack per data directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.stack.errors import StackError
from worker.stack.lock import LOCK_FILE, locked


def test_a_second_holder_is_told_who_and_how(tmp_path: Path) -> None:
    """While one runs, another is refused with the pid and a way out."""
    with locked(tmp_path), pytest.raises(StackError) as refused, locked(tmp_path):
        pass

    assert f"process {os.getpid()}" in str(refused.value)
    assert f"kill {os.getpid()}" in str(refused.value)


def test_it_is_gone_afterwards(tmp_path: Path) -> None:
    """After the end nothing is left, and the next one starts."""
    with locked(tmp_path):
        assert (tmp_path / LOCK_FILE).exists()

    assert not (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """The lock of a process that was killed is no lock."""
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom worker.stack.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=20)
    assert (tmp_path / LOCK_FILE).exists()

    with locked(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().strip() == str(os.getpid())
