"""Asked for, remembered, by default, or free ones."""

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from worker.stack.configuration import Configuration
from worker.stack.errors import StackError
from worker.stack.ports import DEFAULT_PORTS, choose_ports, is_free, remembered_ports

Configured = Callable[..., Configuration]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def choose(
    *services: str, automatic: bool = False, remembered: dict[str, int] | None = None, **asked: int
) -> dict[str, int]:
    return asyncio.run(choose_ports(services, asked=asked, remembered=remembered or {}, automatic=automatic))


def test_an_occupied_port_is_named_with_a_way_out(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which port of which service, and three ways to go on."""
    monkeypatch.setattr("worker.stack.ports.PATIENCE_S", 0.1)

    with pytest.raises(StackError) as refused:
        choose("web", web=taken_port)

    for part in (f"port {taken_port} of web", "--web-port N", "GANGWAY_WEB_PORT=N", "--ports auto"):
        assert part in str(refused.value)


def test_automatic_ports_are_free_and_distinct(taken_port: int) -> None:
    """`auto` gives each service a free port, and not the remembered one if that is taken."""
    chosen = choose(*DEFAULT_PORTS, automatic=True, remembered={"web": taken_port})

    assert len(set(chosen.values())) == len(DEFAULT_PORTS)
    assert taken_port not in chosen.values()
    assert all(is_free(port) for port in chosen.values())


def test_automatic_ports_stay() -> None:
    """What was chosen once is chosen again, so that a webhook sender's URL stays right."""
    first = choose("web", "redis", automatic=True)

    assert choose("web", "redis", automatic=True, remembered=first) == first
    assert choose("web", "redis", remembered=first) == first


def test_one_port_for_two_is_refused() -> None:
    """Two services asked to share a port are told so."""
    port = choose("web", automatic=True)["web"]

    with pytest.raises(StackError, match=f"port {port} is meant for both web and engine"):
        choose("web", "engine", web=port, engine=port)


def test_ports_are_remembered_in_the_file(configured: Configured) -> None:
    """The ports of a stack are among what its file keeps."""
    assert remembered_ports(configured().kept) == DEFAULT_PORTS
