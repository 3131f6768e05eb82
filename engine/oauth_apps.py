"""OAuth apps: what the provider issued to a customer, with the secret sealed (contract 7)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlmodel import Session, col, update

from engine.errors import InvalidError
from engine.owned import Lock, locked, owned
from engine.sealing import Safe
from engine.tables import Credential, JsonObject, OAuthApp
from foundation.database import Database, utc_now


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """How a token request at the provider identifies itself."""

    client_id: str
    client_secret: str = field(repr=False)


def oauth_client(session: Session, safe: Safe, org_id: UUID, app_id: UUID) -> OAuthClient | None:
    """The client id and secret of an organisation's app; nothing for an app that is not registered here."""
    app = session.exec(owned(OAuthApp, org_id).where(OAuthApp.id == app_id)).first()
    return None if app is None else OAuthClient(app.client_id, open_secret(safe, app))


def any_app(database: Database, app_id: UUID | str) -> OAuthApp | None:
    """An app of whichever organisation, for those who come without a token and name only the app."""
    try:
        row_id = app_id if isinstance(app_id, UUID) else UUID(app_id)
    except ValueError:
        return None
    with database.read() as session:
        return session.get(OAuthApp, row_id)


def new_app(
    safe: Safe,
    org_id: UUID,
    *,
    provider: str,
    name: str,
    client_id: str,
    client_secret: str,
    redirect_uris: list[str],
    meta: JsonObject,
) -> OAuthApp:
    """An app that is not stored yet, its secret already sealed."""
    app = OAuthApp(
        org_id=org_id,
        provider=provider,
        name=name,
        client_id=client_id,
        sealed_client_secret="",
        redirect_uris=redirect_uris,
        meta=meta,
    )
    seal_secret(safe, app, client_secret)
    return app


def seal_secret(safe: Safe, app: OAuthApp, client_secret: str) -> None:
    """Put the secret into the row, where only this row can open it again."""
    app.sealed_client_secret = safe.seal_text(client_secret, context=app_context(app))


def open_secret(safe: Safe, app: OAuthApp) -> str:
    return safe.open_text(app.sealed_client_secret, context=app_context(app))


def apps_of(session: Session, org_id: UUID, credentials: Iterable[Credential]) -> Mapping[UUID, OAuthApp]:
    """The apps registered here that credentials name, in one query however many."""
    named = {each.oauth_app_id for each in credentials if each.oauth_app_id is not None}
    if not named:
        return {}
    return {app.id: app for app in session.exec(owned(OAuthApp, org_id).where(col(OAuthApp.id).in_(named)))}


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


def app_context(app: OAuthApp) -> str:
    """What an app's secret is bound to."""
    return f"oauth app:{app.org_id}:{app.id}"
