"""A vault key can be replaced: what it has sealed is sealed again, and then opens without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from engine.access import create_organization
from engine.cli import app
from engine.connect.codes import code_context
from engine.oauth_apps import new_app, open_secret
from engine.providers.issue import Tokens
from engine.resealing import PLACES, Resealed, reseal
from engine.sealing import Safe
from engine.tables import ConnectCode, Credential, OAuthApp
from engine.tables.base import Row
from foundation.database import Database, new_id, utc_now
from foundation.vault import Vault, generate_key

OLD, NEW = generate_key("old"), generate_key("new")
SECRETS = {"secret": "a secret"}
TOKENS = Tokens(access_token="issued", expires_at=utc_now())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """One of this test's own: what others have sealed opens with other keys."""
    database = Database(f"sqlite:///{tmp_path / 'engine.db'}")
    Row.metadata.create_all(database.engine)
    yield database
    database.dispose()


@pytest.fixture
def fingerprint(database: Database) -> str:
    """One of everything, sealed with the old key; gives a fingerprint by the organisation's own."""
    vault, credential_id = Vault.from_text(OLD), new_id()
    safe = Safe(vault)
    with database.write() as session:
        org_id = create_organization(session, vault, "Choam").id
        sealed = safe.seal(SECRETS, org_id=org_id, credential_id=credential_id)
        about = {"id": credential_id, "org_id": org_id, "provider": "stripe", "kind": "k"}
        credential = Credential(**about, fingerprint="f", sealed_secrets=sealed)
        safe.seal_tokens(credential, TOKENS)
        oauth_app = new_app(
            safe,
            org_id,
            provider="stripe",
            name="",
            client_id="",
            client_secret="theirs",
            redirect_uris=[],
            meta={},
        )
        session.add_all([credential, oauth_app])
        session.flush()
        code = ConnectCode(
            org_id=org_id, oauth_app_id=oauth_app.id, code_hash="h", sealed_grant="", expires_at=utc_now()
        )
        code.sealed_grant = safe.seal_text("granted", context=code_context(code))
        session.add(code)
        return safe.fingerprint(session, org_id, "part")


def test_what_is_sealed_again_needs_no_old_key(database: Database, fingerprint: str) -> None:
    """All of it, once; a fingerprint stays what it was."""
    both = Vault.from_text(f"{NEW},{OLD}")

    assert reseal(database, both) == Resealed(len(PLACES), 0)
    assert reseal(database, both) == Resealed(0, 0)

    safe = Safe(Vault.from_text(NEW))
    with database.read() as session:
        credential = session.exec(select(Credential)).one()
        oauth_app = session.exec(select(OAuthApp)).one()
        code = session.exec(select(ConnectCode)).one()
        assert safe.open(credential) == SECRETS
        assert safe.open_tokens(credential) == TOKENS
        assert open_secret(safe, oauth_app) == "theirs"
        assert safe.open_text(code.sealed_grant, context=code_context(code)) == "granted"
        assert safe.fingerprint(session, credential.org_id, "part") == fingerprint


def test_what_no_key_opens_is_told(
    database: Database, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command counts it and fails, so that nobody takes a key away on its word."""
    monkeypatch.setattr("engine.cli.open_database", lambda _settings: database)
    monkeypatch.setenv("GANGWAY_ENGINE_DATABASE_URL", str(database.url))
    monkeypatch.setenv("GANGWAY_ENGINE_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("GANGWAY_ENGINE_VAULT_KEYS", NEW)

    told = CliRunner().invoke(app, ["reseal"])

    assert (told.exit_code, told.stdout) == (1, "0 sealed again\n")
    assert f"{len(PLACES)} open with none of the vault keys" in told.stderr


def test_no_sealed_column_is_forgotten() -> None:
    """Every column that is called sealed is among the places."""
    tables = Row.metadata.tables.values()
    sealed = {(table.name, each.name) for table in tables for each in table.columns if "sealed" in each.name}

    assert {(place.table.__tablename__, place.column) for place in PLACES} == sealed
