"""Taking turns at writing to one SQLite file.

SQLite lets writers wait by sleeping and trying again, up to 100 ms at a time, and whoever asks at the right
moment wins: one busy process can keep the others out for seconds. A file lock makes the kernel queue them
and wakes the next one at once. It is advice only: `BEGIN IMMEDIATE` still guards the data.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import OperationalError

KERNEL_LOCKS: Final = Path("/proc/locks")

log = structlog.get_logger(__name__)


class DatabaseBusyError(OperationalError):
    """Another process kept its turn at writing for too long. Trying again later may help."""

    def __init__(self, lock_file: str, waited_s: float, holder: int | None) -> None:
        self.lock_file, self.waited_s, self.holder = lock_file, waited_s, holder
        super().__init__(None, None, TimeoutError(self._sentence()))

    def __str__(self) -> str:
        return self._sentence()

    def __reduce__(self) -> tuple[type["DatabaseBusyError"], tuple[str, float, int | None]]:
        return type(self), (self.lock_file, self.waited_s, self.holder)

    def _sentence(self) -> str:
        who = "another process" if self.holder is None else f"process {self.holder}"
        return f"{self.lock_file}: held by {who} for more than {self.waited_s:g} s"


class WriterTurns:
    """A queue of the writers of one database file, over all threads and processes of this machine."""

    def __init__(self, database_file: Path, *, limit_s: float) -> None:
        self._path = database_file.with_name(f"{database_file.name}-turns")
        self._limit_s = limit_s
        self._thread_turn = threading.Lock()
        self._fd: int | None = None
        self._given_up: _LockWait | None = None
        self._is_told = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn; others wait until the block ends. Raises `DatabaseBusyError` after the limit."""
        until = time.monotonic() + self._limit_s
        if not self._thread_turn.acquire(timeout=self._limit_s):
            raise self._busy()
        try:
            fd = self._locked(until)
            try:
                yield
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            self._thread_turn.release()

    def close(self) -> None:
        if not self._thread_turn.acquire(timeout=self._limit_s):
            return  # somebody is writing at this moment; the end of the process closes the file
        try:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
        finally:
            self._thread_turn.release()

    def _locked(self, until: float) -> int:
        """Lock the file and return its descriptor, which belongs to the wait for as long as that lasts."""
        wait = self._given_up
        if wait is None or not wait.resumed():
            wait = _LockWait(_opened(self._path) if self._fd is None else self._fd)
        self._fd, self._given_up = None, wait
        if not wait.is_locked_by(until):
            raise self._busy()
        self._fd, self._given_up, self._is_told = wait.fd, None, False
        return wait.fd

    def _busy(self) -> DatabaseBusyError:
        error = DatabaseBusyError(str(self._path), self._limit_s, holder_of(self._path))
        if not self._is_told:
            self._is_told = True
            log.warning("database.busy", lock_file=error.lock_file, holder=error.holder)
        return error


class _LockWait:
    """Takes a lock, if need be from a thread, since only a blocking call is queued and woken by the kernel.

    A wait that is given up may be resumed. If the thread gets the lock before that, it closes the
    descriptor, which gives the lock back.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._is_locked = threading.Event()
        self._is_given_up = self._is_over = False
        self._deciding = threading.Lock()
        if _is_locked(fd):
            self._is_locked.set()
        else:
            threading.Thread(target=self._run, name="turn", daemon=True).start()

    def is_locked_by(self, until: float) -> bool:
        """Return whether we got the lock in time. If not, the descriptor is no longer the caller's."""
        self._is_locked.wait(max(until - time.monotonic(), 0.0))
        with self._deciding:
            self._is_given_up = not self._is_locked.is_set()
            return not self._is_given_up

    def resumed(self) -> bool:
        """Return whether the wait still goes on, for us again."""
        with self._deciding:
            self._is_given_up = self._is_over
            return not self._is_over

    def _run(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        with self._deciding:
            self._is_over = self._is_given_up
            if self._is_over:
                os.close(self.fd)
            else:
                self._is_locked.set()


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Try to take an exclusive lock for the duration of the block. Released when the process dies."""
    fd = _opened(path)
    try:
        yield _is_locked(fd)
    finally:
        os.close(fd)


def holder_of(path: Path) -> int | None:
    """Return the pid that holds a lock on this file, if the kernel tells it."""
    try:
        inode = str(path.stat().st_ino)
        for line in KERNEL_LOCKS.read_text().splitlines():
            number, *fields = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF
            if number.endswith(":") and fields[0] == "FLOCK" and fields[4].rsplit(":", 1)[1] == inode:
                return int(fields[3]) if int(fields[3]) > 0 else None  # 0: in another container
    except (OSError, ValueError, IndexError):
        return None
    return None


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
