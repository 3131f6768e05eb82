"""A real server that takes its time, or says too much: no request outlasts its bounds."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from engine import bounds, issuer
from engine.backfill.fetch import TIMEOUT, Access, FetchError, get
from engine.bounds import aread, bounded, read, within
from engine.clients import new_client
from engine.health import TroubleCode
from engine.issuer import Issuer
from engine.oauth_apps import OAuthClient
from engine.providers.catalogue import load_catalogue
from engine.providers.walk import Request

CATALOGUE = load_catalogue({})
ENOUGH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nX-Trickle: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
EVERY_S, BOUND_S, FAR_LESS_THAN_ALL_S = 0.02, 0.1, 5.0


class Trickling:
    """Answers each request of a connection with the next beginning; what does not end there trickles on."""

    def __init__(self, *beginnings: bytes) -> None:
        self._beginnings = beginnings
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):  # they have given up
            connection, _ = self._listener.accept()
            with connection:
                for beginning in self._beginnings:
                    connection.recv(65_536)
                    connection.sendall(beginning)
                while not self._over.wait(EVERY_S):
                    connection.sendall(b"1")


@pytest.fixture
def trickling() -> Iterator[Callable[..., Trickling]]:
    started = list[Trickling]()

    def start(*beginnings: bytes) -> Trickling:
        started.append(Trickling(*beginnings))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize("beginning", [b"", HEAD, BODY], ids=["status", "headers", "body"])
def test_whatever_trickles_ends(trickling: Any, beginning: bytes) -> None:
    """Each byte comes in time and the answer never does, on a connection that has served before."""
    server = trickling(ENOUGH, beginning)
    access = Access(server.url, "sk_test")
    began = time.monotonic()

    with new_client(connections=1, timeout=TIMEOUT) as client:
        assert get(client, CATALOGUE["stripe"], "stripe:customer", access, Request("/")).payload == {}
        with pytest.raises(FetchError) as failed:
            get(client, CATALOGUE["stripe"], "stripe:customer", access, Request("/"), within_s=BOUND_S)

    assert failed.value.failure.code is TroubleCode.PROVIDER_UNAVAILABLE
    assert "ReadTimeout" in failed.value.failure.message
    assert time.monotonic() - began < FAR_LESS_THAN_ALL_S


def test_token_requests_end(trickling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the lease does, or two workers would use one refresh token."""
    monkeypatch.setattr(issuer, "WHOLE_ANSWER_S", BOUND_S)
    provider = CATALOGUE["salesforce"]
    grant: Any = provider.credential_kinds["salesforce_oauth2"].grant
    began = time.monotonic()

    with new_client(connections=1, timeout=TIMEOUT) as client:
        asking = Issuer(client, provider, grant, trickling(HEAD).url, {"refresh_token": "r"})
        with pytest.raises(FetchError, match="ReadTimeout"):
            asking.issue(OAuthClient("id", "secret"), None)

    assert time.monotonic() - began < FAR_LESS_THAN_ALL_S


def test_nothing_is_sent_too_late(trickling: Any) -> None:
    """Nor is anybody connected to once the time is over; outside of the block there is no bound."""
    server = trickling(ENOUGH)

    with new_client(connections=1, timeout=TIMEOUT) as client:
        with pytest.raises(httpx.ConnectTimeout), within(0.0):
            client.get(server.url)
        assert client.get(server.url).text == "{}"


def test_names_with_several_addresses(trickling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody listens at is passed over; where there is no other, that is a failure to connect."""
    server = trickling(ENOUGH)
    found = ["127.0.0.2", "127.0.0.1"]
    monkeypatch.setattr(bounds, "addresses_of", lambda *_: found)

    with new_client(connections=1, timeout=TIMEOUT) as client:
        assert client.get(server.url).text == "{}"
        found.clear()
        with pytest.raises(httpx.ConnectError):
            client.get("http://choam.test")


def test_proxies_are_bounded_as_well(trickling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may send everything through a proxy."""
    monkeypatch.setenv("HTTP_PROXY", trickling(HEAD).url)

    with bounded(httpx.Client()) as client, pytest.raises(httpx.ReadTimeout), within(BOUND_S):
        client.get("http://choam.test")


def test_answers_that_are_too_large() -> None:
    """They are not read to their end, whether a thread reads them or a loop."""
    pieces = list[int]()

    class Endless(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                pieces.append(1)
                yield bytes(10)

        async def __aiter__(self) -> Any:
            for each in self:
                yield each

    with pytest.raises(httpx.ReadError, match="too large"):
        read(httpx.Response(200, stream=Endless()), 100)
    with pytest.raises(httpx.ReadError, match="too large"):
        asyncio.run(aread(httpx.Response(200, stream=Endless()), 100))
    assert len(pieces) == 22
