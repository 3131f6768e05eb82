"""API tokens and organisations: issued, limited, revoked; and the commands that do it (section 1.1)."""

import time
from collections.abc import Collection, Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlmodel import col, select
from typer.testing import CliRunner

from engine import tokens
from engine.access import create_organization, ensure_access
from engine.cli import app
from engine.settings import Settings
from engine.tables import ApiToken, Scope
from engine.tokens import Tokens, hash_token, issue, revoke
from foundation.database import Database, utc_now


@pytest.fixture
def org_id(database: Database, settings: Settings) -> UUID:
    with database.write() as session:
        return create_organization(session, settings.vault(), str(uuid4())).id


def row(database: Database, text: str) -> ApiToken:
    with database.read() as session:
        return session.exec(select(ApiToken).where(ApiToken.token_hash == hash_token(text))).one()


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    monkeypatch.setenv("GANGWAY_ENGINE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("GANGWAY_ENGINE_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("GANGWAY_ENGINE_VAULT_KEYS", settings.vault_keys.get_secret_value())
    return CliRunner()


def test_a_token_is_48_random_bytes_and_kept_as_a_hash(database: Database, org_id: UUID) -> None:
    """Section 1.1: 64 characters that nothing but their owner keeps."""
    with database.write() as session:
        token, text = issue(session, org_id, "ci", [Scope.READ])

    assert len(text) == 64
    assert text not in row(database, text).model_dump_json()
    assert token.token_hash == hash_token(text)


def test_use_is_noted_once_a_minute(
    database: Database, org_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Knowing when a token was last used does not make every read a write."""
    with database.write() as session:
        _, text = issue(session, org_id, "ci", [Scope.READ])

    assert Tokens(database).find(text) is not None
    first = row(database, text).last_used_at
    assert Tokens(database).find(text) is not None
    again = row(database, text).last_used_at
    monkeypatch.setattr(tokens, "utc_now", lambda: utc_now() + timedelta(minutes=2))
    Tokens(database).find(text)
    later = row(database, text).last_used_at

    assert first is not None
    assert later is not None
    assert first == again < later


def test_revoked_and_expired_tokens_are_nobody(database: Database, org_id: UUID) -> None:
    with database.write() as session:
        revoked, revoked_text = issue(session, org_id, "revoked", [Scope.READ])
        _, expired_text = issue(session, org_id, "expired", [Scope.READ], utc_now() - timedelta(seconds=1))
        _, valid_text = issue(session, org_id, "valid", [Scope.READ], utc_now() + timedelta(seconds=30))
        revoke(session, revoked.id)

    found = [Tokens(database).find(text) for text in (revoked_text, expired_text, valid_text)]

    assert found[:2] == [None, None]
    assert found[2] == tokens.Bearer(org_id, frozenset({Scope.READ}))


def test_a_remembered_token_is_forgotten_when_it_expires(database: Database, org_id: UUID) -> None:
    with database.write() as session:
        _, text = issue(session, org_id, "short", [Scope.READ], utc_now() + timedelta(seconds=0.3))
    known = Tokens(database)
    known.find(text)

    assert known.recall(text) is not None
    time.sleep(0.35)
    assert known.recall(text) is None


@pytest.mark.parametrize(
    ("scopes", "statuses"),
    [
        (["read"], [200, 403, 403, 403]),
        (["write"], [403, 422, 404, 404]),
        (["read", "write"], [200, 422, 404, 404]),
        (["read-secrets"], [403, 403, 403, 403]),
    ],
)
def test_scopes(
    server: str, database: Database, org_id: UUID, scopes: Collection[str], statuses: list[int]
) -> None:
    """Section 1.4: 403; reading takes `read`, everything else `write`, and neither includes the other."""
    with database.write() as session:
        _, text = issue(session, org_id, "limited", [Scope(scope) for scope in scopes])
    path = f"/v1/streams/{uuid4()}"
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {text}"}) as api:
        answers = [
            api.get("/v1/streams"),
            api.post("/v1/streams", json={}),
            api.patch(path, json={"slug": "x"}),
            api.delete(path),
        ]

    assert [answer.status_code for answer in answers] == statuses
    for answer in answers:
        if answer.status_code == 403:
            assert answer.json()["summary"].startswith("Forbidden: the token lacks the scope ")


def test_consuming_is_reading(api: httpx.Client, server: str, database: Database, stream: str) -> None:
    """Who may only read may receive and acknowledge, though that is a POST."""
    consumer = api.post("/v1/http-consumers", json={"stream_id": stream}).json()
    org_id = UUID(api.get(f"/v1/streams/{stream}").json()["org_id"])
    with database.write() as session:
        _, text = issue(session, org_id, "reader", [Scope.READ])
    path = f"{server}/v1/http-consumers/{consumer['id']}"

    received = httpx.post(f"{path}/next", headers={"Authorization": f"Bearer {text}"})
    reset = httpx.delete(path, headers={"Authorization": f"Bearer {text}"})

    assert (received.status_code, reset.status_code) == (200, 403)


def test_commands(command: CliRunner, database: Database) -> None:
    """Create an organisation, give it a token, look at it, revoke it."""
    name = str(uuid4())

    created = command.invoke(app, ["organisation", "create", name])
    text = command.invoke(
        app, ["token", "create", "ci", "--organisation", name, "--scope", "read", "--days", "3"]
    ).output.strip()
    token = row(database, text)
    listed = command.invoke(app, ["token", "list", "--organisation", created.output.strip()]).output
    revoked = command.invoke(app, ["token", "revoke", str(token.id)])
    again = command.invoke(app, ["token", "revoke", str(token.id)])

    assert created.exit_code == revoked.exit_code == 0
    assert name in command.invoke(app, ["organisation", "list"]).output
    assert token.scopes == ["read"]
    assert token.expires_at is not None
    assert listed.split()[:3] == [str(token.id), "valid", "read"]
    assert text not in listed
    assert "could be revoked" in str(again.exception)
    assert Tokens(database).find(text) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["token", "create", "ci", "--organisation", "nobody"], "there is no organisation 'nobody'"),
        (["organisation", "create", "default"], "there is an organisation 'default' already"),
    ],
)
def test_commands_refuse(command: CliRunner, server: str, arguments: list[str], sentence: str) -> None:
    """What cannot be done is said in a sentence."""
    assert sentence in str(command.invoke(app, arguments).exception)


def test_configured_tokens_stay_revoked(database: Database, settings: Settings, server: str) -> None:
    """A configured token that was revoked is not brought back by the next start."""
    text = f"configured-{uuid4()}"
    ensure_access(database, settings.vault(), [SecretStr(text)])
    token = row(database, text)
    with database.write() as session:
        revoke(session, token.id)
    ensure_access(database, settings.vault(), [SecretStr(text)])

    with database.read() as session:
        found = session.exec(select(ApiToken).where(col(ApiToken.token_hash) == hash_token(text))).all()
    assert token.scopes == ["read", "read-secrets", "write"]
    assert [each.revoked_at is not None for each in found] == [True]


def test_a_configured_token_ends_when_it_is_no_longer_configured(
    database: Database, settings: Settings, server: str
) -> None:
    """Taking it out of the settings revokes it, putting it back brings it back; others do not care."""
    text = f"configured-{uuid4()}"
    ensure_access(database, settings.vault(), [SecretStr(text)])
    with database.write() as session:
        _, created = issue(session, row(database, text).org_id, "bootstrap", [Scope.READ])

    ensure_access(database, settings.vault(), [])
    without, again = Tokens(database), Tokens(database, [SecretStr(text)])

    assert without.find(text) is None
    assert again.find(text) is not None
    assert without.find(created) is not None


def test_the_list_tells_of_tokens_no_longer_configured(
    command: CliRunner, database: Database, settings: Settings, server: str
) -> None:
    """An operator sees that it is of no use."""
    text = f"configured-{uuid4()}"
    ensure_access(database, settings.vault(), [SecretStr(text)])

    listed = command.invoke(app, ["token", "list"]).output

    assert f"{row(database, text).id}  unset" in listed
