"""How the looks at what the records behind a credential are like begin and end."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlmodel import Session

from engine.providers.catalogue import Provider
from engine.tables import CollectionRefresh, Credential, JsonObject, RefreshStatus
from engine.transactions import retrying
from foundation.database import Database, utc_now

ABANDONED_AFTER: Final = timedelta(minutes=5)
"""A refresh that takes longer died with its process."""
INTERRUPTED: Final = "The refresh was interrupted: start it again"


def title_of(name: str) -> str:
    """A collection's name for people: `checkout.session` is `Checkout session`."""
    return name.replace("_", " ").replace(".", " ").capitalize()


def ids_of(provider: Provider) -> Mapping[str, str]:
    """Every collection's id to its name."""
    return {f"{provider.name}:{name}": name for name in provider.collections}


def state_of(session: Session, credential_id: UUID) -> CollectionRefresh:
    """The last refresh; before the first, what the catalogue knows is all there is to know."""
    return session.get(CollectionRefresh, credential_id) or CollectionRefresh(credential_id=credential_id)


def outcome(refresh: CollectionRefresh, now: datetime) -> tuple[RefreshStatus, JsonObject | None]:
    """How it stands, and what went wrong."""
    if is_abandoned(refresh, now):
        return RefreshStatus.FAILED, {"summary": INTERRUPTED}
    return RefreshStatus(refresh.status), refresh.error


def is_abandoned(refresh: CollectionRefresh, now: datetime) -> bool:
    started_at = refresh.last_started_at
    is_processing = refresh.status == RefreshStatus.PROCESSING
    return is_processing and started_at is not None and started_at < now - ABANDONED_AFTER


def begin(session: Session, credential: Credential, now: datetime) -> tuple[CollectionRefresh, bool]:
    """Start a refresh unless one is under way; says whether this call started it."""
    refresh = session.get(CollectionRefresh, credential.id, with_for_update=True)
    if refresh is None:
        refresh = CollectionRefresh(credential_id=credential.id)
        session.add(refresh)
    elif refresh.status == RefreshStatus.PROCESSING and not is_abandoned(refresh, now):
        return refresh, False
    refresh.status, refresh.last_started_at, refresh.error = RefreshStatus.PROCESSING, now, None
    session.flush()
    return refresh, True


def finish(
    database: Database,
    credential_id: UUID,
    started_at: datetime | None,
    *,
    schemas: Mapping[str, JsonObject] | None = None,
    error: JsonObject | None = None,
) -> None:
    """Store the outcome, unless a later start has taken over or the credential is gone."""

    def work(session: Session) -> None:
        refresh = session.get(CollectionRefresh, credential_id, with_for_update=True)
        if refresh is None or refresh.last_started_at != started_at:
            return
        refresh.status = RefreshStatus.FAILED if schemas is None else RefreshStatus.SUCCEEDED
        refresh.error = error
        if schemas is not None:
            refresh.schemas = {**refresh.schemas, **schemas}
            refresh.last_succeeded_at = utc_now()

    retrying(database, work)
