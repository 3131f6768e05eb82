"""Looks anew at what the records behind a credential are like; harmless to start twice."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from engine.collections.schema import learn
from engine.providers.catalogue import Provider
from engine.tables import CollectionRefresh, Credential, JsonObject, Record, RefreshStatus, Sync
from engine.transactions import retrying
from foundation.database import Database, utc_now

SAMPLE: Final = 100
"""Records per sync and collection."""
ABANDONED_AFTER: Final = timedelta(minutes=1)
"""A refresh that takes longer died with its process."""
INTERRUPTED: Final[JsonObject] = {"summary": "The refresh was interrupted: start it again"}

log = structlog.get_logger(__name__)


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
        return RefreshStatus.FAILED, INTERRUPTED
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


def run(database: Database, provider: Provider, credential_id: UUID, started_at: datetime) -> None:
    """Learn every collection's schema from a sample of its records."""
    try:
        schemas = {
            collection_id: learn(title_of(name), records)
            for collection_id, name in ids_of(provider).items()
            if (records := _sample(database, credential_id, collection_id))
        }
    except SQLAlchemyError as exc:
        log.warning("collections.refresh_failed", error=type(exc).__name__)
        failed: JsonObject = {"summary": "The records could not be read: start the refresh again"}
        _finish(database, credential_id, started_at, error=failed)
    else:
        _finish(database, credential_id, started_at, schemas=schemas)


def _finish(
    database: Database,
    credential_id: UUID,
    started_at: datetime,
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
            refresh.schemas = {**schemas}
            refresh.last_succeeded_at = utc_now()

    retrying(database, work)


def _sample(database: Database, credential_id: UUID, collection_id: str) -> list[JsonObject]:
    with database.read() as session:
        syncs = session.exec(
            select(Sync.id).where(Sync.credential_id == credential_id, col(Sync.removed_at).is_(None))
        ).all()
        return [record for sync_id in syncs for record in _records(session, sync_id, collection_id)]


def _records(session: Session, sync_id: UUID, collection_id: str) -> list[JsonObject]:
    """Some, in the order of an index; what a deleted one was like is of no interest."""
    some = (
        select(Record.data)
        .where(
            Record.sync_id == sync_id,
            Record.collection_id == collection_id,
            col(Record.deleted).is_(False),
        )
        .order_by(col(Record.upstream_id))
        .limit(SAMPLE)
    )
    return [dict(data) for data in session.exec(some)]
