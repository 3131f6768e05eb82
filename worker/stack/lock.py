"""One stack per data directory: a lock that dies with its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.stack.errors import StackError

LOCK_FILE: Final = "stack.lock"


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the directory's lock; the kernel lets go of it however this process ends.

    The file is removed at the end. Someone may have opened it just before, so whoever gets the lock makes
    sure that the file it holds is still the one in the directory.
    """
    path = data_dir / LOCK_FILE
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode().strip() or "unknown"
            os.close(descriptor)
            raise StackError(
                f"{path.parent}: already in use by process {pid}. "
                f"Stop it with Ctrl-C there or `kill {pid}`, or choose another --data-dir."
            ) from None
        if _is_still_there(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
