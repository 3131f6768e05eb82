"""One running process: leader of a group of its own, so that Ctrl-C reaches only the supervisor."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from worker.supervisor import tether
from worker.supervisor.logfile import last_words, open_log, trim
from worker.supervisor.spec import ProcessSpec

POLL_S: Final = 0.05
TETHER: Final = (sys.executable, "-I", "-S", tether.__file__)


class Child:
    """A started process; the files that it makes are for the owner alone.

    Must be made in the main thread: the tether is to the thread that forks.
    """

    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self.spec = spec
        self._log = log
        trim(log)
        descriptor = open_log(log)
        try:
            self._since = os.fstat(descriptor).st_size
            self._process = subprocess.Popen(  # noqa: S603  # the commands are ours
                [*TETHER, str(os.getpid()), *spec.argv],
                env=dict(spec.env),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> int:
        """Its exit status, negative for a signal; by then the rest of its group has been killed too."""
        while (status := self._process.poll()) is None:  # noqa: ASYNC110  # the kernel knows no asyncio.Event
            await asyncio.sleep(POLL_S)
        self._kill_group()
        return status

    def ask_to_end(self) -> None:
        """SIGTERM to the leader alone: how its own children end is its business."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._kill_group()

    def last_words(self) -> str:
        return last_words(self._log, since=self._since)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)


def describe_status(status: int) -> str:
    """`exit status 1`, or the name of the signal."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
