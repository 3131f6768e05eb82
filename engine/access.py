"""Organisations: each owns everything it makes, and sees nothing of another."""

import os
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from pydantic import SecretStr
from sqlmodel import Session, col, select

from engine.tables import ApiToken, Organization, Scope
from engine.tokens import hash_token
from engine.transactions import retrying
from foundation.database import Database, new_id
from foundation.vault import Vault

DEFAULT_ORGANIZATION: Final = "default"
BOOTSTRAP: Final = "bootstrap"


class AccessError(Exception):
    """No such organisation or token, or one too many; a sentence for the operator."""


def ensure_access(database: Database, vault: Vault, tokens: Iterable[SecretStr]) -> None:
    """Make sure the default organisation and the configured tokens exist; harmless to repeat and to race."""

    def ensure(session: Session) -> None:
        organization = named(session, DEFAULT_ORGANIZATION)
        if organization is None:
            organization = create_organization(session, vault, DEFAULT_ORGANIZATION)
        wanted = {hash_token(token.get_secret_value()) for token in tokens}
        known = set(session.exec(select(ApiToken.token_hash).where(col(ApiToken.token_hash).in_(wanted))))
        session.add_all(_configured(organization.id, token_hash) for token_hash in wanted - known)

    retrying(database, ensure)


def _configured(org_id: UUID, token_hash: str) -> ApiToken:
    return ApiToken(
        org_id=org_id, name=BOOTSTRAP, token_hash=token_hash, scopes=sorted(Scope), from_settings=True
    )


def create_organization(session: Session, vault: Vault, name: str) -> Organization:
    """A new organisation, with a key of its own for the fingerprints of its secrets."""
    org_id = new_id()
    sealed = vault.seal(os.urandom(32), context=str(org_id))
    organization = Organization(id=org_id, name=name, sealed_fingerprint_key=sealed)
    session.add(organization)
    session.flush()
    return organization


def named(session: Session, name: str) -> Organization | None:
    return session.exec(select(Organization).where(Organization.name == name)).first()


def find_organization(session: Session, name_or_id: str) -> Organization:
    """The organisation an operator means."""
    found = named(session, name_or_id) or _with_id(session, name_or_id)
    if found is None:
        raise AccessError(f"there is no organisation {name_or_id!r}")
    return found


def _with_id(session: Session, text: str) -> Organization | None:
    try:
        return session.get(Organization, UUID(text))
    except ValueError:
        return None
