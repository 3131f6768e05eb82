"""Seals again, with the newest vault key, whatever an older one has sealed: so that the old key may go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlmodel import Session, col, select

from engine.connect.codes import code_context
from engine.oauth_apps import app_context
from engine.sealing import secrets_context, tokens_context
from engine.tables import ConnectCode, Credential, OAuthApp, Organization
from foundation.database import Database
from foundation.vault import Vault, VaultError

AT_ONCE: Final = 100


class Resealed(NamedTuple):
    """How many values are sealed with the newest key now, and how many no key of ours opens."""

    sealed: int
    lost: int


@dataclass(frozen=True, slots=True)
class Place:
    """A column with sealed values, and what each is bound to."""

    table: type[Any]
    column: str
    context: Callable[[Any], str]


PLACES: Final = (
    Place(Organization, "sealed_fingerprint_key", lambda row: str(row.id)),
    Place(Credential, "sealed_secrets", secrets_context),
    Place(Credential, "sealed_tokens", tokens_context),
    Place(OAuthApp, "sealed_client_secret", app_context),
    Place(ConnectCode, "sealed_grant", code_context),
)


def reseal(database: Database, vault: Vault) -> Resealed:
    """Go through all there is, a few rows per transaction; doing it again is harmless."""
    counts = [_reseal(database, vault, place) for place in PLACES]
    return Resealed(sum(each.sealed for each in counts), sum(each.lost for each in counts))


def _reseal(database: Database, vault: Vault, place: Place) -> Resealed:
    sealed = lost = 0
    after: UUID | None = UUID(int=0)
    while after is not None:
        with database.write() as session:
            rows = _rows(session, place, after)
            for row in rows:
                value: str | None = getattr(row, place.column)
                if value is None or vault.is_current(value):
                    continue
                try:
                    setattr(row, place.column, vault.reseal(value, context=place.context(row)))
                    sealed += 1
                except VaultError:
                    lost += 1
            after = rows[-1].id if rows else None
    return Resealed(sealed, lost)


def _rows(session: Session, place: Place, after: UUID) -> Sequence[Any]:
    """Locked, since others renew tokens and import secrets meanwhile."""
    following = select(place.table).where(col(place.table.id) > after).order_by(col(place.table.id))
    return session.exec(following.limit(AT_ONCE).with_for_update(key_share=True)).all()
