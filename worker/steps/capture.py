"""Capture: bring the tenant's credential to the Management API, which from then on is its only keeper."""

import json

from pydantic import JsonValue

from foundation.vault import Vault, VaultError
from models import State
from worker.errors import ApiRejectedError, TransientError, UnreadableSecretError
from worker.management import ManagementApi
from worker.queue.verdict import Claim, Verdict
from worker.redaction import redact, redact_within
from worker.steps.wanted import marker


async def capture(claim: Claim, api: ManagementApi, vault: Vault) -> Verdict:
    """Import the sealed credential, or make sure that the one named by id exists."""
    if claim.sealed_credential is None:
        return await _by_id(claim, api)
    body = _opened(claim.sealed_credential, vault, owner=str(claim.connection_id))
    metadata = body.get("metadata")
    own = marker(claim)
    try:
        imported = await api.import_credential(
            body | {"metadata": (metadata if isinstance(metadata, dict) else {}) | own}
        )
    except (ApiRejectedError, TransientError) as exc:
        raise _without_secrets(exc, body) from None
    return _captured(imported.id)


def _opened(sealed: str, vault: Vault, *, owner: str) -> dict[str, JsonValue]:
    try:
        opened: dict[str, JsonValue] = json.loads(vault.open(sealed, context=owner))
    except VaultError as exc:
        raise UnreadableSecretError(str(exc)) from exc
    return opened


async def _by_id(claim: Claim, api: ManagementApi) -> Verdict:
    named = claim.overrides.get("credential_id") or claim.remote_credential_id
    found = await api.get_credential(str(named))
    return _captured(found.id)


def _captured(credential_id: str) -> Verdict:
    return Verdict(
        did="captured",
        why="credential captured",
        move=State.CAPTURED,
        facts={"remote_credential_id": credential_id, "sealed_credential": None},
    )


def _without_secrets(
    error: ApiRejectedError | TransientError, body: dict[str, JsonValue]
) -> ApiRejectedError | TransientError:
    """An API may quote the credential when it fails; we must not."""
    if isinstance(error, TransientError):
        return type(error)(
            redact(error.reason, secrets_in=body),
            retry_after_s=error.retry_after_s,
            may_have_happened=error.may_have_happened,
        )
    fields = {
        redact(name, secrets_in=body): redact_within(reasons, secrets_in=body)
        for name, reasons in error.fields.items()
    }
    return type(error)(error.status, redact(error.summary, secrets_in=body), fields)
