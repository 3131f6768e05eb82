"""Comes by the token that a credential's requests carry, and renews what the provider issues for a while.

All workers share what was issued: it lies sealed in the credential's row. Who renews it first leases the
row, asks without holding a transaction, and stores access token and rotated refresh token together; the
others wait for the outcome. A worker that dies in between leaves the old refresh token, which the next tries.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import httpx
import structlog
from pydantic import JsonValue
from sqlmodel import Session, select

from engine.access import DEFAULT_ORGANIZATION, named
from engine.backfill.fetch import Access, FetchError
from engine.backfill.verdict import Failure, unreachable
from engine.health import TroubleCode
from engine.issuer import AppRefusedError, Issuer
from engine.oauth_apps import OAuthClient, note_verdict, oauth_client
from engine.providers.auth import Basic, Installation, Static, settled
from engine.providers.catalogue import Catalogue, Provider
from engine.providers.issue import Tokens
from engine.providers.urls import ForbiddenUrlError
from engine.sealing import Safe
from engine.settings import ProviderOverrides
from engine.tables import Credential
from engine.transactions import retrying
from foundation.database import Database, utc_now
from foundation.vault import VaultError

LEASE: Final = timedelta(seconds=8)
"""Longer than a token request may take (`issuer.WHOLE_ANSWER_S`), or two would use one refresh token."""
WAIT_S: Final = 3.0
LOOK_EVERY_S: Final = 0.05
UNDER_WAY: Final = "another worker is still asking for a token"

log = structlog.get_logger(__name__)


class RenewalUnderWayError(FetchError):
    """Another worker takes long to renew the tokens; nothing is wrong yet."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to renew one credential's tokens until a lease ends."""

    credential_id: UUID
    leased_until: datetime
    fingerprint: str
    """Of the secrets that it began with."""
    held: Tokens | None = field(repr=False)
    """And the tokens."""
    app_id: UUID | None
    app: OAuthClient | None

    @property
    def refresh_token(self) -> str | None:
        return self.held.refresh_token if self.held else None


@dataclass(frozen=True, slots=True)
class Authority:
    """One per worker process; its threads share it."""

    database: Database
    safe: Safe
    catalogue: Catalogue
    client: httpx.Client
    own_apps: Mapping[str, OAuthClient] = field(default_factory=dict)
    """Of the installation itself, by provider, for credentials that name no OAuth app known here."""
    wait_s: float = WAIT_S
    """How long to wait for another worker that is asking."""

    def access(self, credential: Credential, *, instead_of: Access | None = None) -> Access:
        """What the credential's requests need; raises `FetchError` when there is no coming by it.

        `instead_of` is an access that the provider refused: then the token will be another one.
        """
        provider = self.catalogue[credential.provider]
        values = {**credential.properties, **self._secrets(credential)}
        grant = settled(provider.credential_kinds[credential.kind].grant, values)
        base_url = _base_url(provider, credential)
        if isinstance(grant, Static | Basic):
            return Access(base_url, grant.token(values))
        refused = instead_of.token if instead_of else None
        issuer = Issuer(self.client, provider, grant, base_url, values)
        return Access(base_url, self._issued(credential, issuer, refused), is_renewable=True)

    def _secrets(self, credential: Credential) -> dict[str, JsonValue]:
        try:
            return self.safe.open(credential)
        except VaultError:
            message = "The stored credential cannot be opened with the vault's keys: import it again"
            raise FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message)) from None

    def _issued(self, credential: Credential, issuer: Issuer, refused: str | None) -> str:
        give_up_at = time.monotonic() + self.wait_s
        while True:
            held = self.safe.open_tokens(credential)
            if held is not None and held.is_good(utc_now(), refused):
                return held.access_token
            if not _is_being_renewed(credential, utc_now()):
                take_turn = partial(self._take_turn, credential_id=credential.id, refused=refused)
                turn = retrying(self.database, take_turn)
                if isinstance(turn, Tokens):
                    return turn.access_token
                if turn is not None:
                    return self._renew(turn, issuer)
            if time.monotonic() > give_up_at:
                raise RenewalUnderWayError(unreachable(issuer.provider.title, UNDER_WAY))
            time.sleep(LOOK_EVERY_S)
            with self.database.read() as session:  # not the lock: all who wait would queue for it
                credential = session.get_one(Credential, credential.id)

    def _take_turn(self, session: Session, credential_id: UUID, refused: str | None) -> Tokens | Turn | None:
        """Tokens that somebody has renewed by now, or the right to; nothing while somebody is at it."""
        now, credential = utc_now(), _locked(session, credential_id)
        tokens = self.safe.open_tokens(credential)
        if tokens is not None and tokens.is_good(now, refused):
            return tokens
        if _is_being_renewed(credential, now):
            return None
        credential.renewing_until = now + LEASE
        app_id = credential.oauth_app_id
        app = oauth_client(session, self.safe, credential.org_id, app_id) if app_id else None
        return Turn(
            credential_id=credential.id,
            leased_until=credential.renewing_until,
            fingerprint=credential.fingerprint,
            held=tokens,
            app_id=app_id if app else None,
            app=app or self._own_app(session, credential),
        )

    def _own_app(self, session: Session, credential: Credential) -> OAuthClient | None:
        """The installation's app, where the credential is no mere number that anybody could give."""
        kind = self.catalogue[credential.provider].credential_kinds[credential.kind]
        if isinstance(kind.grant, Installation):
            default = named(session, DEFAULT_ORGANIZATION)
            if default is None or default.id != credential.org_id:
                return None
        return self.own_apps.get(credential.provider)

    def _renew(self, turn: Turn, issuer: Issuer) -> str:
        try:
            client = issuer.own_client or _known_app(turn, issuer.provider)
            tokens = issuer.issue(client, turn.refresh_token)
        except FetchError as exc:
            newer = self._finish(turn, None, is_app_refused=isinstance(exc, AppRefusedError))
            if newer is None:
                raise
            return newer.access_token
        self._finish(turn, tokens, is_app_refused=False)
        log.info("credential.renewed", credential_id=str(turn.credential_id), provider=issuer.provider.name)
        return tokens.access_token

    def _finish(self, turn: Turn, tokens: Tokens | None, *, is_app_refused: bool) -> Tokens | None:
        """End the turn and store what was issued; gives what somebody else has stored since it began.

        What was issued may hold the only refresh token that is still good. So it is stored even if the lease
        ran out meanwhile, unless the row has other tokens or secrets by now.
        """

        def work(session: Session) -> Tokens | None:
            credential = _locked(session, turn.credential_id)
            if credential.renewing_until == turn.leased_until:
                credential.renewing_until = None
            if turn.app_id is not None and (tokens is not None or is_app_refused):
                note_verdict(session, turn.app_id, is_accepted=not is_app_refused)
            held = self.safe.open_tokens(credential)
            if (credential.fingerprint, held) != (turn.fingerprint, turn.held):
                return held
            if tokens is not None:
                newest = tokens.refresh_token or turn.refresh_token
                self.safe.seal_tokens(credential, tokens.model_copy(update={"refresh_token": newest}))
            return None

        return retrying(self.database, work)


def own_apps(overrides: Mapping[str, ProviderOverrides]) -> Mapping[str, OAuthClient]:
    """The apps that the settings name, by provider."""
    return {
        name: OAuthClient(each.client_id, each.client_secret.get_secret_value())
        for name, each in overrides.items()
        if each.client_id is not None and each.client_secret is not None
    }


def _is_being_renewed(credential: Credential, now: datetime) -> bool:
    return credential.renewing_until is not None and credential.renewing_until > now


def _locked(session: Session, credential_id: UUID) -> Credential:
    statement = select(Credential).where(Credential.id == credential_id)
    return session.exec(statement.with_for_update(key_share=True)).one()


def _known_app(turn: Turn, provider: Provider) -> OAuthClient:
    if turn.app is None:
        message = f"No OAuth app is known for this credential of {provider.title}: register it"
        raise FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message))
    return turn.app


def _base_url(provider: Provider, credential: Credential) -> str:
    try:
        return provider.root(credential.properties)
    except ForbiddenUrlError as exc:
        message = f"The credential's address {exc}: import it again"
        raise FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message)) from None
