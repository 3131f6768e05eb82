"""Capture: bring the tenant's credential to the Management API, which from then on is its only keeper."""

import json

from pydantic import JsonValue

from foundation.vault import Vault
from models import State
from worker.errors import ApiRejectedError
from worker.management import ManagementApi
from worker.redaction import redact
from worker.steps.verdict import Claim, Verdict
from worker.steps.wanted import marker


def capture(claim: Claim, api: ManagementApi, vault: Vault) -> Verdict:
    """Import the sealed credential, or make sure that the one named by id exists."""
    connection = claim.connection
    if connection.sealed_credential is None:
        return _by_id(claim, api)
    body: dict[str, JsonValue] = json.loads(
        vault.open(connection.sealed_credential, context=str(connection.tenant_id))
    )
    metadata = body.get("metadata")
    own = marker(claim)
    try:
        imported = api.import_credential(
            body | {"metadata": (metadata if isinstance(metadata, dict) else {}) | own}
        )
    except ApiRejectedError as exc:
        raise _without_secrets(exc, body) from None
    return _captured(imported.id)


def _by_id(claim: Claim, api: ManagementApi) -> Verdict:
    named = claim.connection.overrides.get("credential_id") or claim.connection.remote_credential_id
    found = api.get_credential(str(named))
    return _captured(found.id)


def _captured(credential_id: str) -> Verdict:
    return Verdict(
        why="credential captured",
        move=State.CAPTURED,
        facts={"remote_credential_id": credential_id, "sealed_credential": None},
    )


def _without_secrets(error: ApiRejectedError, body: dict[str, JsonValue]) -> ApiRejectedError:
    """An API may quote the credential in its refusal; we must not."""
    summary = redact(error.summary, secrets_in=body)
    fields = json.loads(redact(json.dumps(error.fields, default=str), secrets_in=body))
    return type(error)(error.status, summary, fields)
