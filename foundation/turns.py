"""Taking turns at writing to one SQLite file.

SQLite lets writers wait by sleeping and trying again, up to 100 ms at a time, and whoever asks at the right
moment wins: one busy process can keep the others out for seconds. A file lock makes the kernel queue them
and wakes the next one at once. It is advice only: `BEGIN IMMEDIATE` still guards the data.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there SQLite's own way of waiting has to do
    fcntl = None  # type: ignore[assignment]


class WriterTurns:
    """A queue of the writers of one database file, over all threads and processes of this machine."""

    def __init__(self, database_file: Path) -> None:
        self._path = database_file.with_name(f"{database_file.name}-turns")
        self._thread_turn = threading.Lock()
        self._fd: int | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn; others wait until the block ends."""
        with self._thread_turn:
            fd = self._open()
            if fcntl is None:
                yield
                return
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._thread_turn:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether we have this lock file to ourselves until the block ends. Never waits."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _is_locked(fd)
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
