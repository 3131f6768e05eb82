"""`/v1/collections` (contract 8): what can be synced with a credential."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field, JsonValue
from sqlmodel import Session

from engine.api.body import JsonRoute
from engine.api.caller import Authenticated, Caller
from engine.api.listing import Listed
from engine.collections import refresh
from engine.collections.schema import learn
from engine.errors import NotFoundError
from engine.hints import INSPECT
from engine.owned import Lock, find
from engine.providers.catalogue import Provider
from engine.tables import CollectionRefresh, Credential, JsonObject, RefreshStatus
from foundation.database import utc_now

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=JsonRoute)


class CollectionObject(BaseModel):
    """A collection (contract 8.2); `schema` is the JSON Schema of the raw record as far as it is known."""

    id: str = Field(examples=["stripe:customer"])
    upstream_id: str
    name: str
    json_schema: dict[str, JsonValue] = Field(serialization_alias="schema")
    metadata: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def of(cls, collection_id: str, name: str, known: JsonObject) -> "CollectionObject":
        title = refresh.title_of(name)
        learnt = known.get(collection_id)
        schema = learnt if isinstance(learnt, dict) else learn(title, [])
        return cls(id=collection_id, upstream_id=name, name=title, json_schema=schema)


class RefreshObject(BaseModel):
    """How the last look at the upstream schema went (contract 8.1)."""

    credential_id: UUID
    last_started_at: datetime | None
    last_succeeded_at: datetime | None
    status: RefreshStatus
    error: dict[str, JsonValue] | None

    @classmethod
    def of(cls, state: CollectionRefresh, now: datetime) -> "RefreshObject":
        status, error = refresh.outcome(state, now)
        return cls(
            credential_id=state.credential_id,
            last_started_at=state.last_started_at,
            last_succeeded_at=state.last_succeeded_at,
            status=status,
            error=error,
        )


@router.get("/{credential_id}")
def list_(caller: Authenticated, credential_id: str) -> Listed[CollectionObject]:
    """List the collections that a credential's provider has."""
    with caller.read() as session:
        provider, known = _known(session, caller, credential_id)
    ids = refresh.ids_of(provider)
    return Listed(data=[CollectionObject.of(each, name, known) for each, name in ids.items()])


@router.get("/{credential_id}/{collection_id}")
def get(caller: Authenticated, credential_id: str, collection_id: str) -> CollectionObject:
    """Get a collection."""
    with caller.read() as session:
        provider, known = _known(session, caller, credential_id)
    name = refresh.ids_of(provider).get(collection_id)
    if name is None:
        raise NotFoundError("collection")
    return CollectionObject.of(collection_id, name, known)


@router.post("/{credential_id}/refresh/start")
def start(caller: Authenticated, credential_id: str) -> RefreshObject:
    """Begin to ask the provider what its records look like now; a refresh that is under way goes on."""
    now = utc_now()

    def work(session: Session) -> tuple[RefreshObject, bool]:
        credential = find(session, Credential, caller.org_id, credential_id, Lock.CHANGE)
        state, is_new = refresh.begin(session, credential, now)
        return RefreshObject.of(state, now), is_new

    answer, is_new = caller.write(work)
    if is_new:
        caller.services.hints.give(INSPECT, [answer.credential_id])
    return answer


@router.get("/{credential_id}/refresh/status")
def status(caller: Authenticated, credential_id: str) -> RefreshObject:
    """How far the refresh is."""
    with caller.read() as session:
        credential = find(session, Credential, caller.org_id, credential_id)
        return RefreshObject.of(refresh.state_of(session, credential.id), utc_now())


def _known(session: Session, caller: Caller, credential_id: str) -> tuple[Provider, JsonObject]:
    """A credential's provider, and the schemas learnt so far."""
    credential = find(session, Credential, caller.org_id, credential_id)
    state = refresh.state_of(session, credential.id)
    return caller.services.catalogue[credential.provider], state.schemas
