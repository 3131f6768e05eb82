"""Whose credential is this? Asks the provider, briefly; it may well not say."""

import asyncio
from typing import Final

import httpx
import structlog

from engine.credentials import GivenCredential
from engine.providers.auth import Basic, Static
from engine.providers.catalogue import Identity
from engine.providers.paths import dig

TIMEOUT_S: Final = 3.0
AT_ONCE: Final = 20

log = structlog.get_logger(__name__)


class Accounts:
    """Names the upstream account behind a token, when the provider can."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        timeout = httpx.Timeout(TIMEOUT_S, connect=1.0)
        self._client = httpx.AsyncClient(transport=transport, limits=limits, timeout=timeout)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def key_of(self, given: GivenCredential) -> str | None:
        """The account's id plus what else sets its data apart; nothing when the provider does not say."""
        kind, identity = given.provider.credential_kinds[given.kind], given.provider.identity
        named = [str(given.properties[name]) for name in kind.account if name in given.properties]
        if named:
            return "|".join(named)
        if identity is None or not isinstance(kind.grant, Static | Basic):
            return None
        try:
            async with asyncio.timeout(TIMEOUT_S), self._places:
                account_id = await self._ask(given, identity, kind.grant)
        except (httpx.HTTPError, TimeoutError, ValueError) as exc:
            log.warning("account.not_told", provider=given.provider.name, error=type(exc).__name__)
            return None
        distinct = [f"{name}={given.properties.get(name)}" for name in identity.distinct_by]
        return "|".join([account_id, *distinct])

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _ask(self, given: GivenCredential, identity: Identity, grant: Static | Basic) -> str:
        provider = given.provider.bound(given.kind, given.properties)
        values = {**given.properties, **given.secrets}
        url = provider.root(given.properties) + provider.prefix + identity.path
        answer = await self._client.get(url, headers=provider.carrying(grant.token(values)))
        answer.raise_for_status()
        account_id = dig(answer.json(), identity.id)
        if not account_id:
            raise ValueError("the provider's answer holds no account id")
        return str(account_id)
