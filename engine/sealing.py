"""A credential's secrets at rest, bound to their organisation and credential."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from uuid import UUID

from sqlmodel import Session

from engine.providers.issue import Tokens
from engine.tables import Credential, JsonObject, Organization
from foundation.vault import Vault, VaultError


class Safe:
    """Seals and opens secrets, and fingerprints them with a key of the organisation's own."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._fingerprint_keys: dict[UUID, bytes] = {}

    def seal(self, secrets: Mapping[str, object], *, org_id: UUID, credential_id: UUID) -> str:
        return self._vault.seal(json.dumps(dict(secrets)).encode(), context=f"{org_id}:{credential_id}")

    def open(self, credential: Credential) -> JsonObject:
        sealed, context = credential.sealed_secrets, secrets_context(credential)
        opened: JsonObject = json.loads(self._vault.open(sealed, context=context))
        return opened

    def seal_tokens(self, credential: Credential, tokens: Tokens) -> None:
        """Put what the provider issued into the row."""
        credential.sealed_tokens = self.seal_text(
            tokens.model_dump_json(), context=tokens_context(credential)
        )

    def open_tokens(self, credential: Credential) -> Tokens | None:
        """What the provider issued; nothing when it is not there, or sealed with a key that is gone."""
        if credential.sealed_tokens is None:
            return None
        try:
            opened = self.open_text(credential.sealed_tokens, context=tokens_context(credential))
        except VaultError:
            return None
        return Tokens.model_validate_json(opened)

    def seal_text(self, text: str, *, context: str) -> str:
        """Seal something that is no credential's; `context` names whose it is."""
        return self._vault.seal(text.encode(), context=context)

    def open_text(self, sealed: str, *, context: str) -> str:
        return self._vault.open(sealed, context=context).decode()

    def fingerprint(self, session: Session, org_id: UUID, *parts: str) -> str:
        """The same for the same parts, and of no use without the organisation's key."""
        key = self._fingerprint_keys.get(org_id) or self._load_key(session, org_id)
        return hmac.new(key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def _load_key(self, session: Session, org_id: UUID) -> bytes:
        organization = session.get_one(Organization, org_id)
        key = self._vault.open(organization.sealed_fingerprint_key, context=str(org_id))
        self._fingerprint_keys[org_id] = key
        return key


def secrets_context(credential: Credential) -> str:
    """What a credential's secrets are bound to."""
    return f"{credential.org_id}:{credential.id}"


def tokens_context(credential: Credential) -> str:
    """What its tokens are bound to."""
    return f"tokens:{credential.org_id}:{credential.id}"
