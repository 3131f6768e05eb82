"""`gangway up` and `gangway demo` as an operator runs them: whole, real, and hit on the head."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from worker.demo.patience import Patience
from worker.settings import STACK_FILE
from worker.stack.envfile import read_env_file

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]

GANGWAY = str(Path(sysconfig.get_path("scripts")) / "gangway")
STILL_S = 60.0
PROCESSES = 8
STOP_WITHIN_S = 60.0
EVENT = {
    "type": "tenant.created",
    "timestamp": "2026-01-01T00:00:00Z",
    "data": {"external_id": "org_1", "name": "Choam Corp", "connections": [{"provider": "stripe"}]},
}


class Up:
    """A running `gangway up`, with everything that it printed."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._output = data_dir.parent / "up.out"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [GANGWAY, "up", "--data-dir", str(data_dir), "--ports", "auto"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(data_dir),
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until_it_runs(self) -> None:
        """Wait until everything has been started, ready or not."""
        wait_for(
            lambda: len(children_of(self.process.pid)) == PROCESSES,
            moves=lambda: sorted(children_of(self.process.pid)),
        )

    def wait_until_ready(self) -> None:
        wait_for(
            lambda: "Ctrl-C ends everything" in self.output or self.process.poll() is not None,
            moves=lambda: sorted(children_of(self.process.pid)),
        )
        assert self.process.poll() is None, self.output

    def pid_of(self, *words: str) -> int | None:
        """The child whose command line has all of these words."""
        found = [
            pid for pid in children_of(self.process.pid) if all(word in command_of(pid) for word in words)
        ]
        return found[0] if found else None

    def kill_and_await_another(self, *words: str) -> None:
        before = self.pid_of(*words)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: self.pid_of(*words) not in {None, before})


def environment(data_dir: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GANGWAY_")}
    return inherited | {"GANGWAY_DATA_DIR": str(data_dir)}


@contextmanager
def up(data_dir: Path) -> Iterator[Up]:
    running = Up(data_dir)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(timeout=STOP_WITHIN_S)


def gangway(data_dir: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GANGWAY, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=STOP_WITHIN_S,
        env=environment(data_dir),
        check=False,
    )


def test_a_day_in_the_life_of_a_stack(tmp_path: Path) -> None:
    """It survives the death of its parts, keeps its state over restarts, and leaves nothing behind."""
    data_dir = tmp_path / "a data 'directory'" / ("long" * 30)
    data_dir.parent.mkdir()

    with up(data_dir) as first:
        first.wait_until_ready()
        everyone = children_of(first.process.pid)
        assert len(everyone) == PROCESSES
        refuses_a_second_one(first)
        accepts_an_event(data_dir)
        first.kill_and_await_another("redis-server")
        first.kill_and_await_another("gangway", "work", "onboarding")
        wait_for(lambda: is_ready(data_dir))
        assert "redis ended with SIGKILL" in first.output
        hides_its_secrets(first)
        everyone += children_of(first.process.pid)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(timeout=STOP_WITHIN_S) == 0, first.output
    assert [pid for pid in everyone if is_alive(pid)] == []
    assert not (data_dir / "stack.lock").exists()

    with up(data_dir) as second:
        second.wait_until_it_runs()
        assert knows_the_tenant(data_dir)
        everyone = children_of(second.process.pid)
        second.process.kill()
        second.process.wait(timeout=STOP_WITHIN_S)
        wait_for(lambda: not any(is_alive(pid) for pid in everyone))


def test_the_demo_ends_as_promised(tmp_path: Path) -> None:
    """24 customers come aboard, the one with the wrong key is named with what to do, and all ends."""
    demo = subprocess.run(
        [GANGWAY, "demo", "--exit", "--data-dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "24 ready and 1 failed" in demo.stdout
    assert "org_13 (Maple Homes) failed: credential_rejected" in demo.stdout
    assert "what to do: Ask the customer" in demo.stdout
    assert "sk_test_" not in demo.stdout


def refuses_a_second_one(first: Up) -> None:
    second = gangway(first.data_dir, "up", "--data-dir", str(first.data_dir))

    assert second.returncode == 1
    assert f"already in use by process {first.process.pid}" in second.stderr


def accepts_an_event(data_dir: Path) -> None:
    answers = [gangway(data_dir, "send", "-", "--id", "msg_1", stdin=json.dumps(EVENT)) for _ in range(2)]

    assert [answer.returncode for answer in answers] == [0, 0], answers
    assert answers[0].stdout == answers[1].stdout
    assert json.loads(answers[0].stdout)["state"] == "awaiting_credential"


def knows_the_tenant(data_dir: Path) -> bool:
    one = gangway(data_dir, "status", "org_1", "--json")
    nobody = gangway(data_dir, "status", "org_2")

    assert nobody.returncode == 1
    assert "no tenant has the external_id 'org_2'" in nobody.stderr
    return one.returncode == 0 and json.loads(one.stdout)["name"] == "Choam Corp"


def hides_its_secrets(stack: Up) -> None:
    values = read_env_file(stack.data_dir / STACK_FILE)
    secrets = [value for name, value in values.items() if name.endswith(("TOKEN", "KEYS", "PASSWORD"))]
    seen = [command_of(pid) for pid in children_of(stack.process.pid)] + [stack.output]

    assert len(secrets) == 5
    assert not [secret for secret in secrets if any(secret in text for text in seen)]


def is_ready(data_dir: Path) -> bool:
    port = read_env_file(data_dir / STACK_FILE)["GANGWAY_WEB_PORT"]
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    return answer.status_code == 200 and answer.json()["broker"] == "ok"


def children_of(pid: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and parent_of(entry) == pid
    ]


def parent_of(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(holds: Callable[[], bool], moves: Callable[[], object] = lambda: None) -> None:
    """Wait as long as something moves: the machine may be busy with something else."""
    patience = Patience[object](STILL_S)
    while not holds():
        assert not patience.is_over(moves())
        time.sleep(0.1)
