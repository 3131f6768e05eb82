"""The only place that builds HTTP clients: they keep no cookies and follow no redirects.

One client serves the requests of all customers. A cookie kept from one customer's answer would travel with
another's request, and a provider may prefer it to the token.
"""

from http.cookiejar import CookieJar
from typing import Any
from urllib.request import Request

import httpx

from engine.bounds import bounded


class NoCookies(CookieJar):
    """A jar that stays empty: it does not even parse what an answer sets."""

    def extract_cookies(self, response: Any, request: Request) -> None:
        """Keep nothing."""

    def add_cookie_header(self, request: Request) -> None:
        """Send nothing."""


def new_client(
    *, connections: int, timeout: httpx.Timeout, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Return a client for threads; its connections mind `engine.bounds.within`."""
    client = httpx.Client(
        transport=transport,
        timeout=timeout,
        limits=_limits(connections),
        follow_redirects=False,  # they would carry the token elsewhere
        cookies=NoCookies(),
    )
    return bounded(client)


def new_async_client(
    *, connections: int, timeout: httpx.Timeout, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """Return a client for an event loop; the caller bounds the whole time with `asyncio.timeout`."""
    return httpx.AsyncClient(
        transport=transport,
        timeout=timeout,
        limits=_limits(connections),
        follow_redirects=False,
        cookies=NoCookies(),
    )


def _limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
