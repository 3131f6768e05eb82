"""Asks a provider what the records behind a credential look like; harmless to do twice."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import httpx
import structlog
from sqlmodel import Session, col, select

from engine.authority import Authority
from engine.backfill.fetch import Access, FetchError, get, understood
from engine.backfill.pace import Pace
from engine.backfill.report import counted
from engine.collections.refresh import INTERRUPTED, finish, ids_of, title_of
from engine.collections.schema import learn
from engine.health import TroubleCode
from engine.providers.answer import Answer
from engine.providers.catalogue import Provider
from engine.providers.paging import Cursor
from engine.providers.records import Page, read_page
from engine.providers.walk import Request, request
from engine.tables import CollectionRefresh, Credential, JsonObject, Record, RefreshStatus, Sync
from foundation.database import Database
from foundation.logs import place_of

SAMPLE: Final = 100
"""Records per sync and collection."""
PAGES: Final = 3
"""How many are asked for until one holds a record: where each parent has a list, the first hold parents."""

log = structlog.get_logger(__name__)


class RefusedError(Exception):
    """Nothing could be read; the message says why."""


@dataclass(slots=True)
class _Visit:
    """What one refresh asks with: the access is a newer one once the first was refused."""

    credential: Credential
    provider: Provider
    access: Access


@dataclass(frozen=True, slots=True)
class Inspector:
    """One per worker process."""

    database: Database
    authority: Authority
    client: httpx.Client
    pace: Pace
    stopping: threading.Event

    def refresh(self, credential_id: UUID) -> str:
        """Learn every collection's schema, if somebody has asked for that; say how it went in a few words."""
        with self.database.read() as session:
            state = session.get(CollectionRefresh, credential_id)
            credential = session.get(Credential, credential_id)
        if state is None or credential is None or state.status != RefreshStatus.PROCESSING:
            return "nobody has asked"
        try:
            schemas = self._schemas(credential)
        except (RefusedError, FetchError) as exc:
            summary = exc.failure.message if isinstance(exc, FetchError) else str(exc)
            finish(self.database, credential_id, state.last_started_at, error={"summary": summary})
            return f"{credential.provider} refused"
        except Exception as exc:  # noqa: BLE001  # a mistake of ours; its words may quote a secret
            name = type(exc).__name__
            log.error("refresh.mistaken", error=name, at=place_of(exc))  # noqa: TRY400
            error: JsonObject = {"summary": f"The engine cannot read this account ({name})"}
            finish(self.database, credential_id, state.last_started_at, error=error)
            return f"{credential.provider} failed: {name}"
        finish(self.database, credential_id, state.last_started_at, schemas=schemas)
        return f"{credential.provider}: {counted(len(schemas), 'collection')} with a schema"

    def _schemas(self, credential: Credential) -> Mapping[str, JsonObject]:
        """By collection. One that the credential may not list stays without, unless that is all of them."""
        provider = self.authority.catalogue[credential.provider]
        provider = provider.bound(credential.kind, credential.properties)
        visit = _Visit(credential, provider, self.authority.access(credential))
        schemas, refusals = dict[str, JsonObject](), list[str]()
        for collection_id, name in ids_of(provider).items():
            records = self._known(credential.id, collection_id)
            try:
                records += self._first(visit, collection_id)
            except FetchError as exc:
                if exc.failure.code is not TroubleCode.COLLECTION_FAILED:
                    raise
                refusals.append(exc.failure.message)
            if records:
                schemas[collection_id] = learn(title_of(name), records)
        if len(refusals) == len(provider.collections):
            raise RefusedError(refusals[0])
        return schemas

    def _first(self, visit: _Visit, collection_id: str) -> list[JsonObject]:
        """The first records that the provider lists."""
        cursor: Cursor | None = None
        for _ in range(PAGES):
            page = self._page(visit, collection_id, cursor)
            cursor = page.following
            if page.records or cursor is None:
                return [record.data for record in page.records]
        return []

    def _page(self, visit: _Visit, collection_id: str, cursor: Cursor | None) -> Page:
        provider = visit.provider
        wanted = request(provider, collection_id, cursor)
        try:
            answer = self._ask(visit, collection_id, wanted)
        except FetchError as exc:
            if not (exc.is_refusal and visit.access.is_renewable):
                raise
            visit.access = self.authority.access(visit.credential, instead_of=visit.access)
            answer = self._ask(visit, collection_id, wanted)
        return understood(provider, lambda: read_page(provider, collection_id, answer, cursor))

    def _ask(self, visit: _Visit, collection_id: str, wanted: Request) -> Answer:
        """Make one request, in the provider's usual pace: it is no sync's."""
        credential, provider = visit.credential, visit.provider
        while (wait_s := self.pace.wait_s(credential.id, credential.id, provider.rate_limit)) > 0:
            if self.stopping.wait(wait_s):
                raise RefusedError(INTERRUPTED)
        try:
            return get(self.client, provider, collection_id, visit.access, wanted)
        finally:
            self.pace.answered(credential.id, credential.id)

    def _known(self, credential_id: UUID, collection_id: str) -> list[JsonObject]:
        """Some that syncs have read before."""
        with self.database.read() as session:
            syncs = session.exec(
                select(Sync.id).where(Sync.credential_id == credential_id, col(Sync.removed_at).is_(None))
            ).all()
            return [record for sync_id in syncs for record in _sample(session, sync_id, collection_id)]


def _sample(session: Session, sync_id: UUID, collection_id: str) -> list[JsonObject]:
    """In the order of an index; what a deleted one was like is of no interest."""
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
