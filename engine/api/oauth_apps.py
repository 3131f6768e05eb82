"""`/v1/oauth-apps` (contract 7): register, look at, change, delete."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from sqlmodel import Session, col

from engine.api.body import JsonRoute
from engine.api.caller import Authenticated, Caller
from engine.api.deletion import delete_unused
from engine.api.idempotency import Key, create_once, once_only
from engine.api.listing import HealthFilter, Listed, MetadataFilter, Page, equal
from engine.api.oauth_app_shapes import OAuthAppBody, OAuthAppObject, OAuthAppPatch
from engine.api.shapes import MASK, Deleted
from engine.api.verdicts import has_verdict
from engine.errors import InvalidError
from engine.oauth_apps import new_app, open_secret, seal_secret
from engine.owned import Lock, find, owned
from engine.tables import Credential, OAuthApp, Scope
from foundation.database import utc_now

router = APIRouter(prefix="/v1/oauth-apps", tags=["OAuth apps"], route_class=JsonRoute)
ROUTE: Final = "POST /v1/oauth-apps"

Truncate = Annotated[
    bool, Query(description="false shows client secrets; the token needs the scope `read-secrets`")
]


@router.post("")
def create(caller: Authenticated, key: Key, body: OAuthAppBody) -> OAuthAppObject:
    """Register an app."""
    once = once_only(key, ROUTE, body)
    if caller.services.catalogue.get(body.provider) is None:
        available = ", ".join(caller.services.catalogue)
        raise InvalidError({"provider": [f"not available in this engine, available: {available}"]})
    app = new_app(
        caller.services.safe,
        caller.org_id,
        provider=body.provider,
        name=body.name,
        client_id=body.client_id,
        client_secret=body.client_secret,
        redirect_uris=body.redirect_uris,
        meta=body.metadata,
    )
    created = caller.write(lambda session: create_once(session, caller, once, OAuthApp, lambda: app))
    return OAuthAppObject.of(created)


@router.get("")
def list_(
    caller: Authenticated,
    page: Page,
    metadata: MetadataFilter,
    provider: str | None = None,
    health: HealthFilter = None,
    truncate_secrets: Truncate = True,
) -> Listed[OAuthAppObject]:
    """List apps."""
    if not truncate_secrets:
        caller.require(Scope.READ_SECRETS)
    statement = owned(OAuthApp, caller.org_id).where(
        metadata.within(col(OAuthApp.meta)),
        has_verdict(col(OAuthApp.rejected_at), health),
        *equal(OAuthApp, provider=provider),
    )
    with caller.read() as session:
        rows, following = page.cut(session.exec(page.select(statement, OAuthApp)).all(), lambda row: row)
    shown = [_shown(caller, row, truncate_secrets=truncate_secrets) for row in rows]
    return Listed(data=shown, next_cursor=following)


@router.get("/{app_id}")
def get(caller: Authenticated, app_id: str, truncate_secrets: Truncate = True) -> OAuthAppObject:
    """Get an app."""
    if not truncate_secrets:
        caller.require(Scope.READ_SECRETS)
    with caller.read() as session:
        app = find(session, OAuthApp, caller.org_id, app_id)
    return _shown(caller, app, truncate_secrets=truncate_secrets)


@router.patch("/{app_id}")
def update(caller: Authenticated, app_id: str, body: OAuthAppPatch) -> OAuthAppObject:
    """Change an app; with a new secret it counts as taken again until the provider says otherwise."""

    def work(session: Session) -> OAuthApp:
        app = find(session, OAuthApp, caller.org_id, app_id, Lock.CHANGE)
        if body.name is not None:
            app.name = body.name
        if body.client_secret is not None:
            seal_secret(caller.services.safe, app, body.client_secret)
            app.rejected_at = None
        if body.redirect_uris is not None:
            app.redirect_uris = body.redirect_uris
        if "metadata" in body.model_fields_set:
            app.meta = body.metadata or {}
        app.updated_at = utc_now()
        return app

    return OAuthAppObject.of(caller.write(work))


@router.delete("/{app_id}")
def delete(caller: Authenticated, app_id: str) -> Deleted:
    """Delete an app that no credential uses any more."""
    return delete_unused(caller, OAuthApp, app_id, {Credential: "oauth_app_id"})


def _shown(caller: Caller, app: OAuthApp, *, truncate_secrets: bool) -> OAuthAppObject:
    return OAuthAppObject.of(app, MASK if truncate_secrets else open_secret(caller.services.safe, app))
