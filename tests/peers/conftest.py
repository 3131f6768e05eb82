"""Starts peers as processes of their own, on free ports, and ends each by its id."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).parent
START_TIMEOUT_S = 20.0


@pytest.fixture(scope="session")
def start_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Give a function that starts a script with options and returns the URL it serves."""
    with ExitStack() as stack:

        def start(script: str, *options: str) -> str:
            port_file = tmp_path_factory.mktemp("peer") / "port"
            command = [sys.executable, str(HERE / script), "--port-file", str(port_file), *options]
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.terminate)
            return f"http://127.0.0.1:{wait_for_port(process, port_file)}"

        yield start


def wait_for_port(process: subprocess.Popen[bytes], port_file: Path) -> int:
    """Return the port once the process listens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not port_file.exists():
        assert process.poll() is None, "the peer ended before it listened"
        assert time.monotonic() < deadline, "the peer did not listen in time"
        time.sleep(0.01)
    return int(port_file.read_text())
