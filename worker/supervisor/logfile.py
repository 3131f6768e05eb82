"""A process's output on disk: appended to across restarts, bounded in size, quoted when the process dies."""

import os
import shutil
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 10 * 1024 * 1024
TAIL_BYTES: Final = 8192
QUOTE_LENGTH: Final = 300


def open_log(path: Path) -> int:
    """A descriptor for appending, readable by the owner alone."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def trim(path: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Move a log that has grown too long aside, as `NAME.log.1`, while its process keeps appending to it.

    Lines written between the copy and the cut are lost; the alternative is a pipe that a slow supervisor
    would let fill up, and so stop the process.
    """
    if path.exists() and path.stat().st_size > max_bytes:
        shutil.copy(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)


def last_words(path: Path, *, since: int) -> str:
    """The last two lines written after the given offset, on one line."""
    with path.open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(min(since, end), end - TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    words = " | ".join([line.strip() for line in lines if line.strip()][-2:])
    return words if len(words) <= QUOTE_LENGTH else "..." + words[-QUOTE_LENGTH:]
