"""Organisations and bearer tokens: who exists, and whom a token speaks for."""

import hashlib
import os
import time
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from pydantic import SecretStr
from sqlmodel import Session, select

from engine.tables import ApiToken, Organization
from engine.transactions import retrying
from foundation.database import Database, new_id
from foundation.vault import Vault

DEFAULT_ORGANIZATION: Final = "default"
BOOTSTRAP: Final = "bootstrap"
REMEMBERED_FOR_S: Final = 10.0
REMEMBERED: Final = 1_000


def ensure_access(database: Database, vault: Vault, tokens: Iterable[SecretStr]) -> None:
    """Make sure the default organisation and the configured tokens exist; harmless to repeat and to race."""

    def ensure(session: Session) -> None:
        organization = _default_organization(session, vault)
        wanted = {hash_token(token.get_secret_value()) for token in tokens}
        known = set(session.exec(select(ApiToken.token_hash)))
        for token_hash in wanted - known:
            session.add(ApiToken(org_id=organization.id, name=BOOTSTRAP, token_hash=token_hash))

    retrying(database, ensure)


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """Resolves tokens to organisations and remembers the answer for a moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[UUID, float]] = {}

    def recall(self, token: str) -> UUID | None:
        """The organisation, if it was looked up a moment ago."""
        org_id, until = self._known.get(hash_token(token), (None, 0.0))
        return org_id if time.monotonic() < until else None

    def find(self, token: str) -> UUID | None:
        """The organisation a token speaks for, if any."""
        token_hash = hash_token(token)
        with self._database.read() as session:
            org_id = session.exec(select(ApiToken.org_id).where(ApiToken.token_hash == token_hash)).first()
        if org_id is not None:
            self._remember(token_hash, org_id)
        return org_id

    def _remember(self, token_hash: str, org_id: UUID) -> None:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token_hash] = (org_id, time.monotonic() + REMEMBERED_FOR_S)


def _default_organization(session: Session, vault: Vault) -> Organization:
    found = session.exec(select(Organization).where(Organization.name == DEFAULT_ORGANIZATION)).first()
    if found is not None:
        return found
    org_id = new_id()
    sealed = vault.seal(os.urandom(32), context=str(org_id))
    organization = Organization(id=org_id, name=DEFAULT_ORGANIZATION, sealed_fingerprint_key=sealed)
    session.add(organization)
    session.flush()
    return organization
