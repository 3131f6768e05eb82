"""Importing credentials: one per upstream account, however often and however concurrently (contract 6.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from pydantic import JsonValue
from sqlmodel import Session, col, or_, select, update

from engine.errors import InvalidError, Reasons
from engine.oauth_apps import check_reference
from engine.owned import Lock, locked
from engine.providers.auth import Grant, Static, is_carriable, proof, settled
from engine.providers.catalogue import Catalogue, CredentialField, CredentialKind, Provider
from engine.providers.urls import ForbiddenUrlError, placeholders
from engine.sealing import Safe
from engine.tables import Credential, JsonMapping, JsonObject, Progress, Sync
from foundation.database import new_id, utc_now

UNKNOWN_FIELD: Final = CredentialField(type="string", secret=True)
"""What the provider's file does not name might be a secret, so it is kept like one."""


@dataclass(frozen=True, slots=True)
class GivenCredential:
    """What a caller imports, already understood."""

    provider: Provider
    kind: str
    properties: JsonObject
    secrets: JsonObject = field(repr=False)
    name: str | None
    oauth_app_id: UUID | None
    metadata: JsonObject | None

    @property
    def grant(self) -> Grant:
        return self.provider.credential_kinds[self.kind].grant

    @property
    def proof(self) -> str:
        """What tells it from every other credential."""
        return proof(self.grant, {**self.properties, **self.secrets})


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose credential it is: by the provider's word if it gave one, and by the secret itself."""

    fingerprint: str
    account_key: str | None


def understand(
    catalogue: Catalogue,
    properties: JsonMapping,
    *,
    name: str | None,
    oauth_app_id: UUID | None,
    metadata: JsonObject | None,
) -> GivenCredential:
    """Check `properties` against the kind they name; raises with reasons per property.

    What is empty is not there: forms send such fields, and nothing may rest on them.
    """
    kind_name = properties.get("kind")
    provider = catalogue.kinds.get(kind_name) if isinstance(kind_name, str) else None
    if provider is None or not isinstance(kind_name, str):
        available = ", ".join(sorted(catalogue.kinds))
        raise _refused({"kind": [f"not available in this engine, available: {available}"]})
    kind = provider.credential_kinds[kind_name]
    given: JsonObject = {
        key: value for key, value in properties.items() if key != "kind" and value not in (None, "")
    }
    if reasons := _reasons(kind, given):
        raise _refused(reasons)
    secrets = {key: value for key, value in given.items() if _field(kind, key).secret}
    _check_address(provider, given)
    return GivenCredential(
        provider=provider,
        kind=kind_name,
        properties={key: value for key, value in given.items() if key not in secrets},
        secrets=secrets,
        name=name,
        oauth_app_id=oauth_app_id,
        metadata=metadata,
    )


def lookup(
    session: Session, org_id: UUID, provider: str, identity: Identity, lock: Lock = Lock.NONE
) -> Credential | None:
    """The same secret is the same credential; failing that, the same account is."""
    same = [Credential.fingerprint == identity.fingerprint]
    if identity.account_key is not None:
        same.append(Credential.account_key == identity.account_key)
    statement = select(Credential).where(
        Credential.org_id == org_id, Credential.provider == provider, or_(*same)
    )
    found = session.exec(locked(statement, lock)).all()
    return min(found, key=lambda each: each.fingerprint != identity.fingerprint, default=None)


def import_credential(
    session: Session, safe: Safe, org_id: UUID, given: GivenCredential, identity: Identity
) -> tuple[Credential, Sequence[UUID]]:
    """Insert or refresh; also says which readings the refreshed credential may get going again."""
    check_reference(session, org_id, given.oauth_app_id, given.provider.name)
    credential = lookup(session, org_id, given.provider.name, identity, Lock.CHANGE)
    if credential is None:
        return _insert(session, safe, org_id, given, identity), []
    _refresh(session, safe, credential, given, identity)
    return credential, _wake(session, credential)


def _insert(
    session: Session, safe: Safe, org_id: UUID, given: GivenCredential, identity: Identity
) -> Credential:
    credential_id = new_id()
    credential = Credential(
        id=credential_id,
        org_id=org_id,
        provider=given.provider.name,
        kind=given.kind,
        name=given.name,
        oauth_app_id=given.oauth_app_id,
        properties=given.properties,
        sealed_secrets=safe.seal(given.secrets, org_id=org_id, credential_id=credential_id),
        secret_names=list(given.secrets),
        account_key=identity.account_key,
        fingerprint=identity.fingerprint,
        meta=given.metadata or {},
    )
    session.add(credential)
    session.flush()
    return credential


def _refresh(
    session: Session, safe: Safe, credential: Credential, given: GivenCredential, identity: Identity
) -> None:
    if credential.fingerprint != identity.fingerprint or credential.rejected_at is not None:
        credential.sealed_tokens = credential.renewing_until = None  # they came of other secrets
    credential.kind = given.kind
    credential.properties = given.properties
    credential.secret_names = list(given.secrets)
    credential.sealed_secrets = safe.seal(
        given.secrets, org_id=credential.org_id, credential_id=credential.id
    )
    credential.fingerprint = identity.fingerprint
    if credential.account_key is None and not _account_is_taken(session, credential, identity):
        credential.account_key = identity.account_key
    if given.name is not None:
        credential.name = given.name
    if given.oauth_app_id is not None:
        credential.oauth_app_id = given.oauth_app_id
    if given.metadata is not None:
        credential.meta = given.metadata
    credential.rejected_at = None
    credential.updated_at = utc_now()
    session.flush()


def _account_is_taken(session: Session, credential: Credential, identity: Identity) -> bool:
    """Two credentials imported while the provider could not say that they are one account stay two."""
    if identity.account_key is None:
        return True
    statement = select(Credential.id).where(
        Credential.org_id == credential.org_id,
        Credential.provider == credential.provider,
        Credential.account_key == identity.account_key,
    )
    return session.exec(statement).first() is not None


def _wake(session: Session, credential: Credential) -> Sequence[UUID]:
    """Readings in trouble try again at once with the fresh secrets."""
    syncs = select(Sync.id).where(Sync.credential_id == credential.id, col(Sync.removed_at).is_(None))
    waiting = select(Progress.id).where(
        col(Progress.sync_id).in_(syncs), Progress.failures > 0, col(Progress.due_at).is_not(None)
    )
    woken = session.exec(waiting).all()
    if woken:
        session.exec(update(Progress).where(col(Progress.id).in_(woken)).values(due_at=utc_now()))
    return woken


def _reasons(kind: CredentialKind, given: JsonMapping) -> Reasons:
    reasons = {
        name: [f"must be {_article(field.type)}"]
        for name, field in ((name, _field(kind, name)) for name in given)
        if name in kind.fields and not _is_of_type(given[name], field)
    }
    missing = [name for name, field in kind.fields.items() if field.required and name not in given]
    missing += [names[0] for names in kind.grant.needs if not any(name in given for name in names)]
    return {name: ["is required"] for name in missing} | _uncarriable(kind, given) | reasons


def _uncarriable(kind: CredentialKind, given: JsonMapping) -> dict[str, list[str]]:
    """A token that requests carry as it is may have been pasted with something that nobody sees."""
    grant = settled(kind.grant, given)
    tokens = {name: given.get(name) for name in grant.fields} if isinstance(grant, Static) else {}
    return {
        name: ["must be printable ASCII, without blanks around it"]
        for name, token in tokens.items()
        if isinstance(token, str) and not is_carriable(token)
    }


def _check_address(provider: Provider, given: JsonMapping) -> None:
    """Refuse properties that would send requests to anybody but the provider."""
    try:
        provider.root(given)
    except ForbiddenUrlError as exc:
        names = placeholders(provider.base_url + provider.prefix)
        raise _refused({name: [str(exc)] for name in names}) from None


def _field(kind: CredentialKind, name: str) -> CredentialField:
    return kind.fields.get(name, UNKNOWN_FIELD)


def _is_of_type(value: JsonValue, field: CredentialField) -> bool:
    match field.type:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "id":
            return isinstance(value, str | int) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)


def _article(type_name: str) -> str:
    return f"an {type_name}" if type_name[0] in "ai" else f"a {type_name}"


def _refused(reasons: Reasons) -> InvalidError:
    return InvalidError({"properties": reasons})
