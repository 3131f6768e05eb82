"""OAuth apps: what the provider issued to a customer, with the secret sealed (contract 7)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlmodel import Session, col, update

from engine.errors import InvalidError
from engine.owned import Lock, locked, owned
from engine.sealing import Safe
from engine.tables import OAuthApp
from foundation.database import utc_now


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """How a token request at the provider identifies itself."""

    client_id: str
    client_secret: str = field(repr=False)


def oauth_client(session: Session, safe: Safe, org_id: UUID, app_id: UUID) -> OAuthClient | None:
    """The client id and secret of an organisation's app; nothing for an app that is not registered here."""
    app = session.exec(owned(OAuthApp, org_id).where(OAuthApp.id == app_id)).first()
    return None if app is None else OAuthClient(app.client_id, open_secret(safe, app))


def seal_secret(safe: Safe, app: OAuthApp, client_secret: str) -> None:
    """Put the secret into the row, where only this row can open it again."""
    app.sealed_client_secret = safe.seal_text(client_secret, context=_context(app))


def open_secret(safe: Safe, app: OAuthApp) -> str:
    return safe.open_text(app.sealed_client_secret, context=_context(app))


def apps_by_id(session: Session, org_id: UUID, ids: Iterable[UUID | None]) -> Mapping[UUID, OAuthApp]:
    """Those of the ids that name an app of this organisation, in one query however many."""
    wanted = {each for each in ids if each is not None}
    if not wanted:
        return {}
    return {app.id: app for app in session.exec(owned(OAuthApp, org_id).where(col(OAuthApp.id).in_(wanted)))}


def check_reference(session: Session, org_id: UUID, app_id: UUID | None, provider: str) -> None:
    """Refuse another provider's app; an id that is not known here may name an app registered elsewhere."""
    if app_id is None:
        return
    statement = locked(owned(OAuthApp, org_id).where(OAuthApp.id == app_id), Lock.REFER)
    app = session.exec(statement).first()
    if app is not None and app.provider != provider:
        raise InvalidError({"oauth_app_id": [f"is an OAuth app of {app.provider}"]})


def note_verdict(session: Session, app_id: UUID, *, is_accepted: bool) -> None:
    """Remember whether the provider takes the app's client id and secret."""
    rejected_at = None if is_accepted else utc_now()
    changes = col(OAuthApp.rejected_at).is_not(None) if is_accepted else col(OAuthApp.rejected_at).is_(None)
    app = update(OAuthApp).where(col(OAuthApp.id) == app_id, changes)
    session.exec(app.values(rejected_at=rejected_at).execution_options(synchronize_session=False))


def _context(app: OAuthApp) -> str:
    return f"oauth app:{app.org_id}:{app.id}"
