"""Turns the provider's code into tokens: one request, bounded, ending in an answer or a named failure."""

import asyncio
import json
import re
from typing import Final

import httpx
import structlog
from pydantic import JsonValue

from engine.bounds import aread
from engine.clients import new_async_client
from engine.oauth_apps import OAuthClient
from engine.providers.connect import Connect, Inputs, token_form, token_url
from engine.providers.issue import client_header
from engine.tables import JsonObject

TIMEOUT_S: Final = 10.0
TIMEOUT: Final = httpx.Timeout(TIMEOUT_S, connect=3.0)
AT_ONCE: Final = 100
MAX_ANSWER_BYTES: Final = 256 * 1024
WORD: Final = re.compile(r"[a-z_]{1,64}")
REFUSALS_OF_THE_APP: Final = frozenset(
    {"invalid_client", "unauthorized_client", "incorrect_client_credentials"}
)
REFUSALS_OF_THE_REQUEST: Final = frozenset({"invalid_grant", "invalid_request"})
"""Anybody can come back with a made-up code, so these say nothing of the app, whatever the status."""

log = structlog.get_logger(__name__)


class ExchangeError(Exception):
    """The provider gave no tokens; carries an OAuth2 error code and a sentence for people."""

    def __init__(self, error: str, sentence: str, *, refuses_app: bool = False) -> None:
        super().__init__(error, sentence)
        self.error = error
        self.sentence = sentence
        self.refuses_app = refuses_app


class Exchange:
    """Asks token endpoints; one per web process."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = new_async_client(connections=AT_ONCE, timeout=TIMEOUT, transport=transport)

    async def tokens(
        self,
        connect: Connect,
        client: OAuthClient,
        *,
        code: str,
        redirect_uri: str,
        verifier: str,
        inputs: Inputs,
    ) -> JsonObject:
        """The provider's token answer."""
        form = token_form(connect, code=code, redirect_uri=redirect_uri, verifier=verifier)
        headers = {"Accept": "application/json"}
        if connect.client_auth == "basic":
            headers["Authorization"] = client_header(client.client_id, client.client_secret)
        else:
            form |= {"client_id": client.client_id, "client_secret": client.client_secret}
        request = self._client.build_request("POST", token_url(connect, inputs), data=form, headers=headers)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await self._send(request)
        except (httpx.HTTPError, TimeoutError) as exc:
            log.warning("connect.provider_unavailable", error=type(exc).__name__)
            raise ExchangeError("temporarily_unavailable", "The provider does not answer.") from None
        return judged(status, body)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _send(self, request: httpx.Request) -> tuple[int, bytes]:
        answer = await self._client.send(request, stream=True)
        try:
            return answer.status_code, await aread(answer, MAX_ANSWER_BYTES)
        finally:
            await answer.aclose()


def judged(status: int, body: bytes) -> JsonObject:
    """The token answer, or why there is none; some providers refuse with 200 and an `error`."""
    try:
        payload: JsonValue = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    error = payload.get("error") if isinstance(payload, dict) else None
    if status < 300 and isinstance(payload, dict) and not error:
        return payload
    word = error if isinstance(error, str) and WORD.fullmatch(error) else None
    log.warning("connect.provider_refused", status=status, error=word)
    if status >= 500:
        raise ExchangeError("temporarily_unavailable", "The provider has a problem of its own.")
    if word in REFUSALS_OF_THE_APP or (status == 401 and word not in REFUSALS_OF_THE_REQUEST):
        sentence = "The provider does not accept this OAuth app's client id and secret."
        raise ExchangeError("server_error", sentence, refuses_app=True)
    raise ExchangeError("server_error", f"The provider gave no tokens ({word or status}).")
