"""`/v1/credentials` (contract 6): import, look at, rename, delete."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field, JsonValue, model_validator
from sqlmodel import Session, col
from starlette.concurrency import run_in_threadpool

from engine.api.body import JsonRoute
from engine.api.caller import Authenticated, Caller
from engine.api.deletion import delete_unused
from engine.api.idempotency import Key, OnceOnly, once_only
from engine.api.listing import HealthFilter, Listed, MetadataFilter, Page, equal
from engine.api.oauth_app_shapes import Apps, EmbeddedApp, embedded
from engine.api.shapes import MASK, Deleted, Given, Metadata, Name, Never
from engine.api.verdicts import Verdict, has_verdict, verdict
from engine.credentials import GivenCredential, Identity, import_credential, lookup, understand
from engine.errors import InvalidError
from engine.hints import READ
from engine.oauth_apps import apps_of
from engine.owned import Lock, find, owned
from engine.tables import Credential, Sync
from foundation.database import utc_now

router = APIRouter(prefix="/v1/credentials", tags=["credentials"], route_class=JsonRoute)
ROUTE = "POST /v1/credentials"
REFUSED = "The provider refuses this credential: import it again with valid secrets."
OUTER_FIELDS = frozenset({"name", "properties", "oauth_app_id", "metadata", "provider"})


class CredentialBody(Given):
    """What is imported. `properties` depend on their `kind`."""

    properties: dict[str, JsonValue] = Field(
        examples=[{"kind": "stripe_key", "name": "Choam Corp", "secret": "sk_test_...", "test": True}]
    )
    name: Name | None = None
    oauth_app_id: UUID | None = None
    metadata: Metadata | None = None
    provider: str | None = Field(default=None, description="follows from the kind; verified when given")

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: object) -> object:
        """The concept page spells the properties flat (contract 14, row 6)."""
        if not isinstance(value, dict) or "properties" in value or "kind" not in value:
            return value
        outer = {key: each for key, each in value.items() if key in OUTER_FIELDS}
        return outer | {"properties": {key: each for key, each in value.items() if key not in OUTER_FIELDS}}


class CredentialPatch(Given):
    """Only names and metadata change here; secrets are replaced by importing again."""

    name: Name | None = None
    metadata: Metadata | None = None
    properties: Never = None
    oauth_app_id: Never = None
    provider: Never = None


class EmbeddedCredential(BaseModel):
    """A credential inside its sync (contract 2.1)."""

    id: UUID
    provider: str
    properties: dict[str, JsonValue] = Field(description="secrets are masked")
    oauth_app_id: UUID | None
    oauth_app: EmbeddedApp
    metadata: dict[str, JsonValue]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, credential: Credential, apps: Apps) -> "EmbeddedCredential":
        return cls(
            id=credential.id,
            provider=credential.provider,
            properties=masked_properties(credential),
            oauth_app_id=credential.oauth_app_id,
            oauth_app=embedded(credential.oauth_app_id, apps),
            metadata=credential.meta,
            created_at=credential.created_at,
            updated_at=credential.updated_at,
        )


class CredentialObject(EmbeddedCredential):
    """A credential (contract 6.1)."""

    kind: str
    name: str | None
    health: Verdict

    @classmethod
    def of(cls, credential: Credential, apps: Apps) -> "CredentialObject":
        return cls(
            **EmbeddedCredential.of(credential, apps).model_dump(),
            kind=credential.kind,
            name=credential.name,
            health=verdict(credential.rejected_at, credential.updated_at, REFUSED),
        )


def masked_properties(credential: Credential) -> dict[str, JsonValue]:
    """What may be shown: every secret is eleven asterisks (contract 1.5)."""
    masks: dict[str, JsonValue] = dict.fromkeys(credential.secret_names, MASK)
    return {"kind": credential.kind} | credential.properties | masks


def understood(caller: Caller, body: CredentialBody) -> GivenCredential:
    """The body checked against the catalogue, or 422."""
    given = understand(
        caller.services.catalogue,
        body.properties,
        name=body.name,
        oauth_app_id=body.oauth_app_id,
        metadata=body.metadata,
    )
    if body.provider not in (None, given.provider.name):
        raise InvalidError({"provider": [f"{given.kind} is a kind of {given.provider.name}"]})
    return given


async def identify(caller: Caller, given: GivenCredential) -> Identity:
    """Whose credential it is; the provider is asked only when this very secret is not known yet."""
    known = await run_in_threadpool(_identify_by_secret, caller, given)
    if known.account_key is not None:
        return known
    return Identity(known.fingerprint, await caller.services.accounts.key_of(given))


def _identify_by_secret(caller: Caller, given: GivenCredential) -> Identity:
    with caller.read() as session:
        fingerprint = caller.services.safe.fingerprint(
            session, caller.org_id, given.provider.name, given.proof
        )
        known = lookup(session, caller.org_id, given.provider.name, Identity(fingerprint, None))
        return Identity(fingerprint, known.account_key if known else None)


@router.post("")
async def import_(caller: Authenticated, key: Key, body: CredentialBody) -> CredentialObject:
    """Import a credential. Importing for the same upstream account again refreshes it and keeps its id."""
    once = once_only(key, ROUTE, body)
    if once is not None and (earlier := await run_in_threadpool(_created_earlier, caller, once)):
        return earlier
    given = understood(caller, body)
    identity = await identify(caller, given)
    return await run_in_threadpool(_import, caller, given, identity, once)


def _created_earlier(caller: Caller, once: OnceOnly) -> CredentialObject | None:
    with caller.read() as session:
        object_id = once.earlier(session, caller.services.safe, caller.org_id)
        return _shown(session, find(session, Credential, caller.org_id, object_id)) if object_id else None


def _import(
    caller: Caller, given: GivenCredential, identity: Identity, once: OnceOnly | None
) -> CredentialObject:
    safe, woken = caller.services.safe, list[UUID]()

    def work(session: Session) -> CredentialObject:
        if once is not None and (earlier := once.earlier(session, safe, caller.org_id)):
            return _shown(session, find(session, Credential, caller.org_id, earlier))
        credential, awake = import_credential(session, safe, caller.org_id, given, identity)
        woken[:] = awake
        if once is not None:
            once.note(session, safe, caller.org_id, credential.id)
        return _shown(session, credential)

    imported = caller.write(work)
    caller.services.hints.give(READ, woken)
    return imported


@router.get("")
def list_(
    caller: Authenticated,
    page: Page,
    metadata: MetadataFilter,
    provider: str | None = None,
    kind: str | None = None,
    health: HealthFilter = None,
) -> Listed[CredentialObject]:
    """List credentials."""
    statement = owned(Credential, caller.org_id).where(
        metadata.within(col(Credential.meta)),
        has_verdict(col(Credential.rejected_at), health),
        *equal(Credential, provider=provider, kind=kind),
    )
    with caller.read() as session:
        rows, following = page.cut(session.exec(page.select(statement, Credential)).all(), lambda row: row)
        apps = apps_of(session, caller.org_id, rows)
    return Listed(data=[CredentialObject.of(row, apps) for row in rows], next_cursor=following)


@router.get("/{credential_id}")
def get(caller: Authenticated, credential_id: str) -> CredentialObject:
    """Get a credential."""
    with caller.read() as session:
        return _shown(session, find(session, Credential, caller.org_id, credential_id))


@router.patch("/{credential_id}")
def update(caller: Authenticated, credential_id: str, body: CredentialPatch) -> CredentialObject:
    """Change a credential's name or metadata."""

    def work(session: Session) -> CredentialObject:
        credential = find(session, Credential, caller.org_id, credential_id, Lock.CHANGE)
        if "name" in body.model_fields_set:
            credential.name = body.name
        if "metadata" in body.model_fields_set:
            credential.meta = body.metadata or {}
        credential.updated_at = utc_now()
        return _shown(session, credential)

    return caller.write(work)


@router.delete("/{credential_id}")
def delete(caller: Authenticated, credential_id: str) -> Deleted:
    """Delete a credential that no sync uses any more."""
    return delete_unused(caller, Credential, credential_id, {Sync: "credential_id"})


def _shown(session: Session, credential: Credential) -> CredentialObject:
    return CredentialObject.of(credential, apps_of(session, credential.org_id, [credential]))
