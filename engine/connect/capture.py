"""At the end of the provider's leg: its code becomes a credential, held for whoever brings ours."""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from engine.connect.codes import mint
from engine.connect.exchange import Exchange, ExchangeError
from engine.connect.journey import Journey
from engine.credentials import understand
from engine.errors import InvalidError
from engine.oauth_apps import OAuthClient, note_verdict, open_secret
from engine.providers.catalogue import Catalogue
from engine.providers.connect import Connect, Inputs, missing_returns, properties_of
from engine.providers.identity import Accounts
from engine.providers.paths import dig
from engine.sealing import Safe
from engine.tables import JsonObject, OAuthApp
from engine.transactions import retrying
from foundation.database import Database, utc_now

PASSED_ON: Final = frozenset({"access_denied", "invalid_scope", "temporarily_unavailable"})
"""What a provider may say to the product; everything else is not the product's doing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Capture:
    """Captures what a user agreed to hand out."""

    database: Database
    safe: Safe
    catalogue: Catalogue
    exchange: Exchange
    accounts: Accounts

    async def run(self, app: OAuthApp, journey: Journey, callback_url: str, brought: Inputs) -> str:
        """A one-time code of ours; raises `ExchangeError` when the provider hands out nothing.

        `brought` is what the browser came back with.
        """
        code, error = brought.get("code"), brought.get("error")
        if error is not None or not code:
            word = error if error in PASSED_ON else None
            raise ExchangeError(word or "server_error", "The provider did not agree to the connection.")
        connect = self.catalogue[app.provider].connect
        if connect is None:
            raise ExchangeError("server_error", "Accounts of this provider can no longer be connected.")
        if missing_returns(connect, brought):
            raise ExchangeError("server_error", "The provider did not say which account it is.")
        answer = await self._tokens(connect, app, journey, callback_url, code)
        returned = {name: brought[name] for name in connect.returns}
        document: JsonObject = {**answer, "input": dict(journey.inputs), "callback": dict(returned)}
        properties = await self._properties(app.provider, connect, document)
        return await run_in_threadpool(self._mint, app, journey, properties)

    async def _tokens(
        self, connect: Connect, app: OAuthApp, journey: Journey, callback_url: str, code: str
    ) -> JsonObject:
        try:
            return await self.exchange.tokens(
                connect,
                OAuthClient(app.client_id, open_secret(self.safe, app)),
                code=code,
                redirect_uri=callback_url,
                verifier=journey.verifier,
                inputs=journey.inputs,
            )
        except ExchangeError as exc:
            if exc.refuses_app:
                await run_in_threadpool(self._note_refusal, app)
            raise

    async def _properties(self, provider_name: str, connect: Connect, document: JsonObject) -> JsonObject:
        """The answer as properties that an import will take."""
        provider = self.catalogue[provider_name]
        fields = provider.credential_kinds[connect.kind].fields
        arrays = [name for name, field in fields.items() if field.type == "array"]
        properties = self._understood(provider_name, properties_of(connect, arrays, document))
        token = document.get("access_token")
        is_vouched_for = not connect.returns  # the rest is the provider's own word
        if is_vouched_for and not (connect.asks_whose and isinstance(token, str)):
            return properties
        told = await self.accounts.told(provider, connect.kind, properties, str(token))
        if not is_vouched_for and (provider.identity is None or not dig(told, provider.identity.id)):
            raise ExchangeError("server_error", "The provider does not confirm which account it is.")
        return self._understood(provider_name, properties_of(connect, arrays, {**document, "identity": told}))

    def _understood(self, provider_name: str, properties: JsonObject) -> JsonObject:
        try:
            understand(self.catalogue, properties, name=None, oauth_app_id=None, metadata=None)
        except InvalidError as exc:
            log.warning("connect.answer_incomplete", provider=provider_name, reasons=exc.reasons)
            sentence = "The provider's answer lacks what a credential needs."
            raise ExchangeError("server_error", sentence) from None
        return properties

    def _mint(self, app: OAuthApp, journey: Journey, properties: JsonObject) -> str:
        def work(session: Session) -> str:
            note_verdict(session, app.id, is_accepted=True)
            return mint(session, self.safe, app, journey, properties, utc_now())

        return retrying(self.database, work)

    def _note_refusal(self, app: OAuthApp) -> None:
        retrying(self.database, lambda session: note_verdict(session, app.id, is_accepted=False))
