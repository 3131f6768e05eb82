"""The stack's file of settings and secrets: written whole, read by its owner alone."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from worker.stack.errors import StackError

HEADER: Final = (
    "# Written by Gangway, secrets included. Keep it: without the vault keys sealed secrets are lost.\n"
)


def read_env_file(path: Path) -> dict[str, str]:
    """The assignments in the file, none if it is missing."""
    try:
        values = dotenv_values(path, interpolate=False) if path.exists() else {}
    except OSError as exc:
        raise StackError(f"{path}: cannot be read ({exc.strerror}); run as the user who owns it") from exc
    return {name: value for name, value in values.items() if value is not None}


def write_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file in one step: a reader sees the old one or the new one."""
    lines = [f"{name}={_quoted(value)}\n" for name, value in values.items()]
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.writelines([HEADER, *lines])
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
