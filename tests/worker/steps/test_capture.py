"""Capture: the API becomes the only keeper of a credential, and nobody quotes it."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from foundation.vault import Vault, generate_key
from models import State
from tests.support.remote import Remote, answers
from tests.support.rows import a_claim, a_connection, a_tenant
from worker.errors import ApiRejectedError, NotFoundError, TransientError, UnreadableSecretError
from worker.management import ManagementApi
from worker.queue.verdict import Claim, Verdict
from worker.steps.capture import capture as capturing
from worker.steps.wanted import CONNECTION_KEY

SECRET = 'pä55"wörd\\with\nodd characters'
BODY: dict[str, Any] = {
    "properties": {"kind": "stripe_key", "name": "Choam", "secret": SECRET, "test": True},
    "metadata": {"theirs": 1},
}


@pytest.fixture
def vault() -> Vault:
    return Vault.from_text(generate_key())


def sealed_claim(vault: Vault, body: Any = None, **columns: Any) -> Claim:
    connection = a_connection(a_tenant(), **columns)
    sealed = vault.seal(json.dumps(body or BODY).encode(), context=str(connection.id))
    connection.sealed_credential = sealed
    return a_claim(connection)


def capture(claim: Claim, api: ManagementApi, vault: Vault) -> Verdict:
    return asyncio.run(capturing(claim, api, vault))


def test_sealed_credential_is_imported(remote: Remote, api: ManagementApi, vault: Vault) -> None:
    """The credential goes to the API as it was sent, with our connection's id, and is then erased here."""
    claim = sealed_claim(vault)

    verdict = capture(claim, api, vault)

    (credential,) = remote.credentials.values()
    assert credential["properties"] == BODY["properties"]
    assert credential["metadata"] == {"theirs": 1, CONNECTION_KEY: str(claim.connection_id)}
    assert verdict.move is State.CAPTURED
    assert verdict.facts == {"remote_credential_id": credential["id"], "sealed_credential": None}


def test_named_credential_is_looked_up(remote: Remote, api: ManagementApi, vault: Vault) -> None:
    """A credential that the event named by id has to exist, and nothing is imported."""
    remote.credentials["cred_7"] = {"id": "cred_7"}
    connection = a_connection(a_tenant(), overrides={"credential_id": "cred_7"})

    verdict = capture(a_claim(connection), api, vault)

    assert verdict.facts["remote_credential_id"] == "cred_7"
    assert remote.called() == ["GET /v1/credentials/cred_7"]


def test_known_credential_is_confirmed(remote: Remote, api: ManagementApi, vault: Vault) -> None:
    """A connection that starts over without a new secret goes on with the credential it has."""
    remote.credentials["cred_1"] = {"id": "cred_1"}

    verdict = capture(a_claim(a_connection(a_tenant(), remote_credential_id="cred_1")), api, vault)

    assert verdict.facts["remote_credential_id"] == "cred_1"


def test_unknown_credential_is_refused(api: ManagementApi, vault: Vault) -> None:
    """An id that the API does not know is an error that a person can act on."""
    connection = a_connection(a_tenant(), overrides={"credential_id": "nope"})

    with pytest.raises(NotFoundError):
        capture(a_claim(connection), api, vault)


def test_retired_key_is_named(api: ManagementApi) -> None:
    """A credential sealed with a key that is gone waits until the key is back; the advice says so."""
    claim = sealed_claim(Vault.from_text(generate_key("old")))

    with pytest.raises(UnreadableSecretError, match="'old'") as caught:
        capture(claim, api, Vault.from_text(generate_key("new")))

    assert isinstance(caught.value, TransientError)
    assert "GANGWAY_VAULT_KEYS" in caught.value.advice


def test_another_connections_secret_is_not_used(remote: Remote, api: ManagementApi, vault: Vault) -> None:
    """A sealed value that was copied from another row, even of the same tenant, never reaches the API."""
    claim = sealed_claim(vault)
    claim = replace(claim, connection_id=a_connection(a_tenant(id=claim.tenant_id)).id)

    with pytest.raises(UnreadableSecretError):
        capture(claim, api, vault)

    assert remote.requests == []


def quoting(secret: str) -> dict[str, Any]:
    """How an API may throw a secret back."""
    return {
        "summary": f"the key {secret} is bad",
        "validation_errors": {
            "secret": [f"{secret!r} does not work", secret],
            "properties": {"secret": [json.dumps(secret)], secret: ["is no field"]},
        },
    }


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503])
@pytest.mark.parametrize("secret", ["sk_test_4eC39HqLyjWDarjtT1zdp7dc", "plain-pass-word", SECRET])
def test_refusal_that_quotes_the_secret_is_redacted(
    remote: Remote, api: ManagementApi, vault: Vault, status: int, secret: str
) -> None:
    """Whatever the status and wherever the API puts it, the secret is in no error."""
    claim = sealed_claim(vault, {"properties": {"kind": "stripe_key", "secret": secret}})
    remote.before = answers(status, quoting(secret))

    with pytest.raises((ApiRejectedError, TransientError)) as caught:
        capture(claim, api, vault)

    spelled = [secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    said = f"{caught.value} {caught.value!r} {caught.value.args}"
    assert not [each for each in spelled if each in said]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("secret", ['": "', '"]}', "{}{}", "null", "true", "****"])
def test_redaction_survives_odd_secrets(
    remote: Remote, api: ManagementApi, vault: Vault, secret: str
) -> None:
    """A secret that looks like JSON does not break the error that it is taken out of."""
    claim = sealed_claim(vault, {"properties": {"kind": "stripe_key", "secret": secret}})
    remote.before = answers(422, {"summary": "no", "validation_errors": {"secret": ["bad", {"a": ["b"]}]}})

    with pytest.raises(ApiRejectedError) as caught:
        capture(claim, api, vault)

    assert caught.value.fields == {"secret": ["bad", {"a": ["b"]}]}


def test_unexpected_answer_is_not_quoted(remote: Remote, api: ManagementApi, vault: Vault) -> None:
    """A success that is no JSON, but repeats what was sent, leaves no trace of it in the error."""
    remote.before = lambda request: httpx.Response(200, content=b"<html>" + request.content)

    with pytest.raises(TransientError) as caught:
        capture(sealed_claim(vault), api, vault)

    assert "w\\u00f6rd" not in repr(caught.value)
    assert caught.value.__cause__ is None
