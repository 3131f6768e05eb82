"""The configuration of the broker of one machine."""

import asyncio
import stat
import subprocess
from pathlib import Path

from worker.stack.ports import free_port
from worker.stack.redis import redis_config, redis_server, write_redis_config


def test_the_server_accepts_it_and_wants_the_password(tmp_path: Path) -> None:
    """A real server starts from the file, in an awkward directory, and refuses strangers."""
    data_dir = tmp_path / "a long 'quoted' name"
    data_dir.mkdir()
    port = free_port()
    path = write_redis_config(data_dir, port, password="s3cret")

    server = subprocess.Popen([redis_server(), str(path)], stdout=subprocess.DEVNULL)
    try:
        asyncio.run(_answers(port, b"PING\r\n", b"-NOAUTH"))
        asyncio.run(_answers(port, b"AUTH s3cret\r\n", b"+OK"))
    finally:
        server.terminate()
        server.wait(timeout=10)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (data_dir / "redis" / "appendonly.aof").exists()


def test_it_listens_on_loopback_and_forgets_nothing(tmp_path: Path) -> None:
    """No stranger reaches it, and it never drops a message to save memory."""
    lines = redis_config(tmp_path, 6390, password="s3cret").splitlines()

    assert {"bind 127.0.0.1", "appendonly yes", "maxmemory-policy noeviction"} <= set(lines)


async def _answers(port: int, question: bytes, answer: bytes) -> None:
    async with asyncio.timeout(10):
        while not await _got(port, question, answer):  # noqa: ASYNC110  # a server sets no asyncio.Event
            await asyncio.sleep(0.02)


async def _got(port: int, question: bytes, answer: bytes) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(question)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.startswith(answer)
