"""Whose credential is this? Asks the provider, briefly; it may well not say."""

import asyncio
import json
from contextlib import aclosing
from typing import Final

import httpx
import structlog
from pydantic import JsonValue

from engine.bounds import aread
from engine.clients import new_async_client
from engine.credentials import GivenCredential
from engine.providers.auth import Basic, Static, settled
from engine.providers.catalogue import Provider
from engine.providers.paths import dig
from engine.tables.base import JsonMapping

TIMEOUT_S: Final = 3.0
TIMEOUT: Final = httpx.Timeout(TIMEOUT_S, connect=1.0)
AT_ONCE: Final = 20
MAX_ANSWER_BYTES: Final = 256 * 1024

log = structlog.get_logger(__name__)


class Accounts:
    """Names the upstream account behind a token, when the provider can."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = new_async_client(connections=AT_ONCE, timeout=TIMEOUT, transport=transport)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def key_of(self, given: GivenCredential) -> str | None:
        """The account's id plus what else sets its data apart; nothing when the provider does not say."""
        kind, identity = given.provider.credential_kinds[given.kind], given.provider.identity
        named = [str(given.properties[name]) for name in kind.account if name in given.properties]
        if named:
            return "|".join(named)
        values = {**given.properties, **given.secrets}
        grant = settled(kind.grant, values)
        if identity is None or not isinstance(grant, Static | Basic):
            return None
        told = await self.told(given.provider, given.kind, given.properties, grant.token(values))
        if not (account_id := dig(told, identity.id)):
            return None
        distinct = [f"{name}={given.properties.get(name)}" for name in identity.distinct_by]
        return "|".join([str(account_id), *distinct])

    async def told(self, provider: Provider, kind: str, properties: JsonMapping, token: str) -> JsonValue:
        """What the provider's identity endpoint says of a token; nothing when it does not."""
        bound = provider.bound(kind, properties)
        try:
            async with asyncio.timeout(TIMEOUT_S), self._places:
                return await self._ask(bound, provider.root(properties), token)
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as exc:
            log.warning("account.not_told", provider=provider.name, error=type(exc).__name__)
            return None

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _ask(self, provider: Provider, base_url: str, token: str) -> JsonValue:
        identity = provider.identity
        if identity is None:
            return None
        url = base_url + provider.prefix + identity.path
        method = "GET" if identity.body is None else "POST"
        headers = provider.carrying(token)
        request = self._client.build_request(method, url, json=identity.body, headers=headers)
        async with aclosing(await self._client.send(request, stream=True)) as answer:
            answer.raise_for_status()
            told: JsonValue = json.loads(await aread(answer, MAX_ANSWER_BYTES))
        return told
