"""Which ports the servers of this machine listen on: asked for, remembered, by default, or free ones."""

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from worker.stack.errors import StackError
from worker.supervisor import HOST

DEFAULT_PORTS: Final[Mapping[str, int]] = {"web": 8600, "engine": 8700, "flower": 5555, "redis": 6390}
PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
PATIENCE_S: Final = 2.0
RETRY_S: Final = 0.1


def port_variable(service: str) -> str:
    return f"GANGWAY_{service.upper()}_PORT"


def remembered_ports(variables: Mapping[str, str]) -> dict[str, int]:
    """The ports that an earlier run wrote down."""
    found = {service: variables.get(port_variable(service), "") for service in DEFAULT_PORTS}
    return {
        service: int(text) for service, text in found.items() if PORT.fullmatch(text) and int(text) < 65536
    }


async def choose_ports(
    services: Sequence[str],
    *,
    asked: Mapping[str, int | None],
    remembered: Mapping[str, int],
    automatic: bool,
) -> dict[str, int]:
    """A free port for each service. Asked-for ones must be free, automatic ones are chosen so."""
    chosen: dict[str, int] = {}
    for service in services:
        if asked.get(service) is None and automatic:
            chosen[service] = _automatic_port(remembered.get(service), taken=set(chosen.values()))
        else:
            chosen[service] = asked.get(service) or remembered.get(service, DEFAULT_PORTS[service])
    _check_distinct(chosen)
    if occupied := await _occupied(chosen):
        raise StackError("\n".join(_way_out(service, chosen[service]) for service in occupied))
    return chosen


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _automatic_port(preferred: int | None, *, taken: set[int]) -> int:
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    while (port := free_port()) in taken:
        pass
    return port


async def _occupied(ports: Mapping[str, int]) -> list[str]:
    """The services whose port stays taken; the processes of a killed stack get a moment to let go."""
    loop = asyncio.get_running_loop()
    patient_until = loop.time() + PATIENCE_S
    while occupied := [service for service, port in ports.items() if not is_free(port)]:
        if loop.time() > patient_until:
            break
        await asyncio.sleep(RETRY_S)
    return occupied


def _check_distinct(ports: Mapping[str, int]) -> None:
    services = {port: service for service, port in ports.items()}
    for service, port in ports.items():
        if services[port] != service:
            raise StackError(f"port {port} is meant for both {service} and {services[port]}: choose two")


def _way_out(service: str, port: int) -> str:
    return (
        f"port {port} of {service} is taken by another process: stop that, or choose another with "
        f"--{service}-port N or {port_variable(service)}=N, or let `--ports auto` find free ones."
    )
