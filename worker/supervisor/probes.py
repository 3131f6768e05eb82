"""Is it ready yet? Questions to a process on this machine that never raise and never wait for long."""

import asyncio
from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TcpOpen:
    """Ready when the port accepts a connection."""

    port: int

    def __str__(self) -> str:
        return f"{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpOk:
    """Ready when the path answers 200."""

    port: int
    path: str

    def __str__(self) -> str:
        return f"http://{HOST}:{self.port}{self.path}"


Probe = TcpOpen | HttpOk


async def is_ready(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await _ask(probe)
    except (OSError, TimeoutError):
        return False


async def _ask(probe: Probe) -> bool:
    reader, writer = await asyncio.open_connection(HOST, probe.port)
    try:
        if isinstance(probe, TcpOpen):
            return True
        request = f"GET {probe.path} HTTP/1.1\r\nHost: {HOST}:{probe.port}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        status_line = await reader.readline()
        return status_line.split()[1:2] == [b"200"]
    finally:
        writer.close()
