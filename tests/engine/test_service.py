"""Settings, schema and the relay: what decides whether a process starts, and what never holds it up."""

from pathlib import Path

import pytest

from engine.schema import MIGRATIONS, SchemaError, open_database
from engine.settings import Settings, SettingsError, misspelt_variables
from engine.tables import Row
from foundation.database import Database
from foundation.migrations import differences, is_current
from foundation.vault import generate_key


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    values = {
        "GANGWAY_ENGINE_DATABASE_URL": f"sqlite:///{tmp_path / 'engine.db'}",
        "GANGWAY_ENGINE_BROKER_URL": "redis://127.0.0.1:1/0",
        "GANGWAY_ENGINE_VAULT_KEYS": generate_key(),
        "GANGWAY_ENGINE_TOKENS": "first-token-of-two,second-token-of-two",
        "GANGWAY_ENGINE_PROVIDERS__STRIPE__BASE_URL": "http://127.0.0.1:1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def test_settings(environment: dict[str, str]) -> None:
    """Everything comes from the environment, several tokens and nested providers too."""
    settings = Settings.from_environment()

    assert [token.get_secret_value() for token in settings.tokens] == [
        "first-token-of-two",
        "second-token-of-two",
    ]
    assert settings.providers["stripe"].base_url == "http://127.0.0.1:1"
    assert environment["GANGWAY_ENGINE_VAULT_KEYS"] not in repr(settings)


@pytest.mark.parametrize(
    "text", ["first-token-of-two\n", " first-token-of-two ,\n", '["first-token-of-two\\n"]\n']
)
def test_space_around_tokens_is_no_part_of_them(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Secrets come from files, and files end in a newline."""
    monkeypatch.setenv("GANGWAY_ENGINE_TOKENS", text)

    (token,) = Settings.from_environment().tokens

    assert token.get_secret_value() == "first-token-of-two"


def test_misspelt_settings_are_noticed(environment: dict[str, str]) -> None:
    """With the name that was probably meant; nested settings and the stack's port are known."""
    given = {**environment, "GANGWAY_ENGINE_TOKEN": "x", "GANGWAY_ENGINE_PORT": "1", "GANGWAY_LEASES": "1"}

    assert misspelt_variables(given) == {"GANGWAY_ENGINE_TOKEN": "GANGWAY_ENGINE_TOKENS"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GANGWAY_ENGINE_DATABASE_URL", None),
        ("GANGWAY_ENGINE_BROKER_URL", "amqp://guest:hunter2@somewhere"),
        ("GANGWAY_ENGINE_DATABASE_URL", "mysql://guest:hunter2@somewhere/name"),
        ("GANGWAY_ENGINE_DATABASE_URL", "/hunter2/engine.db"),
        ("GANGWAY_ENGINE_TOKENS", "hunter2"),
        ("GANGWAY_ENGINE_TOKENS", "hunter2-hunter2-hunter2 hunter2"),
        ("GANGWAY_ENGINE_TOKENS", "hunter2-hunter2-hunter2-ü"),
        ("GANGWAY_ENGINE_TOKENS", '["hunter2-hunter2,hunter2-hunter2"]'),
        ("GANGWAY_ENGINE_TOKENS", "hunter2:hunter2-hunter2-hunter2"),
        ("GANGWAY_ENGINE_TOKENS", '["hunter2'),
        ("GANGWAY_ENGINE_REQUEST_DEADLINE_S", "-1"),
    ],
)
def test_half_configured(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    """What is missing or wrong is named by its variable, and its value is not repeated."""
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name) as caught:
        Settings.from_environment()

    assert "hunter2" not in str(caught.value)


def test_refuses_a_schema_that_is_not_current(environment: dict[str, str]) -> None:
    """Neither web nor work starts on a database that was not migrated."""
    with pytest.raises(SchemaError, match="migrate"):
        open_database(Settings.from_environment())


def test_models_and_migrations_agree(database: Database) -> None:
    """On both databases, and the schema is current."""
    assert is_current(database, MIGRATIONS)
    assert list(differences(database, Row.metadata)) == []


def test_malformed_nested_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is not the JSON it should be ends in one sentence too."""
    monkeypatch.setenv("GANGWAY_ENGINE_PROVIDERS", "{hunter2")

    with pytest.raises(SettingsError, match="providers") as caught:
        Settings.from_environment()

    assert "hunter2" not in str(caught.value)
