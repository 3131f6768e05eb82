"""Settings: what is missing or wrong is named, what is secret is never shown."""

import json
import os
from pathlib import Path

import pytest

from foundation.vault import generate_key
from worker.settings import Settings, SettingsError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CANARY = "c4nary-" * 5
GOOD = {
    "GANGWAY_DATABASE_URL": "sqlite:///x.db",
    "GANGWAY_BROKER_URL": "redis://127.0.0.1/0",
    "GANGWAY_API_URL": "http://127.0.0.1:9000",
    "GANGWAY_API_TOKEN": CANARY,
    "GANGWAY_WEBHOOK_SECRETS": json.dumps({"app": [SECRET]}),
    "GANGWAY_VAULT_KEYS": generate_key(),
    "GANGWAY_OPERATOR_TOKEN": CANARY,
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("GANGWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    return str(caught.value)


def test_complete_settings_are_read(given: pytest.MonkeyPatch) -> None:
    """With everything set the service can start; the rest has defaults."""
    settings = Settings.load()

    assert settings.api_url == "http://127.0.0.1:9000"
    assert settings.webhook_secrets["app"][0].get_secret_value() == SECRET
    assert settings.vault().open(settings.vault().seal(b"x", context="t"), context="t") == b"x"


def test_everything_missing_is_named() -> None:
    """Without any setting the refusal names all that are needed, and the way out."""
    said = refusal()

    assert not [name for name in GOOD if name not in said]
    assert "gangway up" in said


@pytest.mark.parametrize("name", GOOD)
def test_missing_setting_is_named(given: pytest.MonkeyPatch, name: str) -> None:
    """Each is needed, and named when it lacks."""
    given.delenv(name)

    said = refusal()

    assert f"{name}: Field required" in said
    assert CANARY not in said


WRONG = {
    "URL without a scheme": ("GANGWAY_API_URL", f"{CANARY}:9000", "http://"),
    "short token": ("GANGWAY_API_TOKEN", "c4nary-c4nary-", "at least 16"),
    "secrets no JSON": ("GANGWAY_WEBHOOK_SECRETS", SECRET, "GANGWAY_WEBHOOK_SECRETS"),
    "secrets half JSON": ("GANGWAY_WEBHOOK_SECRETS", '{"app": ["' + SECRET, "GANGWAY_WEBHOOK_SECRETS"),
    "secrets a list": ("GANGWAY_WEBHOOK_SECRETS", json.dumps([SECRET]), "dictionary"),
    "secrets not in a list": ("GANGWAY_WEBHOOK_SECRETS", json.dumps({"app": SECRET}), "list"),
    "no secret for a source": ("GANGWAY_WEBHOOK_SECRETS", '{"app": []}', "'app' has no secret"),
    "secret malformed": ("GANGWAY_WEBHOOK_SECRETS", json.dumps({"app": [CANARY + "!"]}), "base64"),
    "secret as source": ("GANGWAY_WEBHOOK_SECRETS", json.dumps({SECRET: ["app!"]}), "base64"),
    "secret of two sources": (
        "GANGWAY_WEBHOOK_SECRETS",
        json.dumps({"app": [SECRET], "crm": [SECRET.removeprefix("whsec_")]}),
        "sources 'app' and 'crm' share a secret",
    ),
    "key without id": ("GANGWAY_VAULT_KEYS", CANARY, "id:base64"),
    "keys empty": ("GANGWAY_VAULT_KEYS", "", "at least one"),
    "lease of zero": ("GANGWAY_LEASE_S", "0", "GANGWAY_LEASE_S"),
    "endless lease": ("GANGWAY_LEASE_S", "inf", "GANGWAY_LEASE_S"),
    "no number": ("GANGWAY_MAX_ATTEMPTS", CANARY, "GANGWAY_MAX_ATTEMPTS"),
    "tolerance too large": ("GANGWAY_WEBHOOK_TOLERANCE_S", "301", "GANGWAY_WEBHOOK_TOLERANCE_S"),
    "unknown log level": ("GANGWAY_LOG_LEVEL", "LOUD", "GANGWAY_LOG_LEVEL"),
}


@pytest.mark.parametrize(("name", "value", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_setting_is_named_and_not_shown(
    given: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """The refusal names the setting and what was expected, and repeats no value."""
    given.setenv(name, value)

    found = refusal()

    assert name in found
    assert said in found
    assert not [secret for secret in (SECRET, "c4nary") if secret in found]


@pytest.mark.parametrize("url", ["http://h", "http://h/", "http://h/v1", "http://h/v1/"])
def test_base_url_may_end_as_it_likes(given: pytest.MonkeyPatch, url: str) -> None:
    """With or without `/v1` and a slash, it is the same API."""
    given.setenv("GANGWAY_API_URL", url)

    assert Settings.load().api_url == "http://h"


def test_environment_wins_over_the_stacks_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one-machine stack's file fills in what the environment does not say."""
    lines = [f"{name}='{value}'" for name, value in GOOD.items()]
    (tmp_path / "stack.env").write_text("\n".join(lines))
    monkeypatch.setenv("GANGWAY_API_URL", "http://elsewhere")

    settings = Settings.load(tmp_path)

    assert settings.api_url == "http://elsewhere"
    assert settings.api_token.get_secret_value() == CANARY


def test_secrets_do_not_show(given: pytest.MonkeyPatch) -> None:
    """Printing or dumping the settings shows no secret."""
    settings = Settings.load()

    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    assert "c4nary" not in shown
    assert SECRET not in shown
    assert GOOD["GANGWAY_VAULT_KEYS"].partition(":")[2] not in shown
