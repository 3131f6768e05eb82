"""Builds the web application: one per process."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from fastapi import FastAPI

from engine.access import ensure_access
from engine.api import (
    collections,
    connect,
    connect_token,
    consumers,
    credentials,
    failures,
    oauth_apps,
    probes,
    streams,
    syncs,
)
from engine.api.arrival import Arrival
from engine.api.caller import Services
from engine.api.long_polls import LongPolls
from engine.api.shapes import Failure
from engine.connect.capture import Capture
from engine.connect.exchange import Exchange
from engine.hints import Hints
from engine.hints import relay as new_relay
from engine.providers.catalogue import load_catalogue
from engine.providers.identity import Accounts
from engine.schema import open_database
from engine.sealing import Safe
from engine.settings import Settings
from engine.sync_changes import adopt_database
from engine.tokens import Tokens
from foundation.hints import Relay

ABOUT: Final = """
Captures credentials, runs syncs that fill streams, and hands the records to consumers.

Bodies are JSON in UTF-8, at most 1 MiB, without NUL characters and without numbers beyond a double.

A POST that creates commits within the request deadline ({deadline:g} s, counted from when its head was
read) or not at all. A client that got no answer may look for the outcome after that time, or repeat the
request with the same `Idempotency-Key` whenever it likes.
"""
FAILURES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Failure} for status in (400, 401, 403, 404, 413, 422, 500, 504)
}


def create_app(
    settings: Settings,
    *,
    hints: Hints | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    stopping: threading.Event | None = None,
) -> FastAPI:
    """The Management API; `hints` and `transport` replace the broker and the way to the providers."""
    relay = hints or new_relay(settings.broker_url.get_secret_value())
    stop = stopping or threading.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings)
        vault = settings.vault()
        adopt_database(database)
        ensure_access(database, vault, settings.tokens)
        safe, catalogue = Safe(vault), load_catalogue(settings.providers)
        accounts, exchange = Accounts(transport), Exchange(transport)
        app.state.services = Services(
            database=database,
            tokens=Tokens(database, settings.tokens),
            safe=safe,
            catalogue=catalogue,
            accounts=accounts,
            capture=Capture(database, safe, catalogue, exchange, accounts),
            public_url=settings.public_url,
            hints=relay,
            polls=LongPolls(),
            request_deadline_s=settings.request_deadline_s,
            is_stopping=stop.is_set,
        )
        if isinstance(relay, Relay):
            relay.start()
        try:
            yield
        finally:
            stop.set()
            if isinstance(relay, Relay):
                relay.stop()
            await accounts.aclose()
            await exchange.aclose()
            database.dispose()

    app = FastAPI(
        title="Gangway engine",
        summary="The syncs Management API",
        description=ABOUT.format(deadline=settings.request_deadline_s),
        version="1",
        lifespan=lifespan,
        strict_content_type=False,
        redoc_url=None,
    )
    failures.install(app)
    for module in (credentials, collections, oauth_apps, syncs, streams, consumers):
        app.include_router(module.router, responses=FAILURES)
    app.include_router(connect.router)
    app.include_router(connect_token.router, responses=FAILURES)
    app.include_router(probes.router)
    app.add_middleware(Arrival)
    return app
