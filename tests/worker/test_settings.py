"""Settings: what is missing or wrong is named, what is secret is never shown."""

import base64
import json
import os
from pathlib import Path

import pytest

from foundation.vault import generate_key
from worker.settings import Settings, SettingsError, misspelt_variables

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CANARY = "c4nary-" * 5


def whsec(size: int) -> str:
    return f"whsec_{base64.b64encode(b'x' * size).decode()}"


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
    "secret too short": ("GANGWAY_WEBHOOK_SECRETS", '{"app": ["whsec_abc"]}', "24 to 64 bytes"),
    "secret of 23 bytes": ("GANGWAY_WEBHOOK_SECRETS", json.dumps({"app": [whsec(23)]}), "24 to 64 bytes"),
    "secret of 65 bytes": ("GANGWAY_WEBHOOK_SECRETS", json.dumps({"app": [whsec(65)]}), "24 to 64 bytes"),
    "token with a comma": ("GANGWAY_OPERATOR_TOKEN", f"{CANARY},{CANARY}", "without comma"),
    "token that begins with a comma": ("GANGWAY_OPERATOR_TOKEN", f",{CANARY}", "without comma"),
    "token with a colon": ("GANGWAY_OPERATOR_TOKEN", f"{CANARY}:{CANARY}", "without comma"),
    "token with a space": ("GANGWAY_API_TOKEN", f"{CANARY} {CANARY}", "without comma"),
    "token in two lines": ("GANGWAY_API_TOKEN", f"{CANARY}\n{CANARY}", "without comma"),
    "token with an umlaut": ("GANGWAY_API_TOKEN", f"{CANARY}ü", "ASCII"),
    "database of another kind": ("GANGWAY_DATABASE_URL", f"mysql://u:{CANARY}@h/name", "sqlite:///"),
    "database by its path": ("GANGWAY_DATABASE_URL", f"/var/lib/{CANARY}.db", "sqlite:///"),
    "broker of another kind": ("GANGWAY_BROKER_URL", f"amqp://u:{CANARY}@h//", "redis://"),
    "port too large": ("GANGWAY_API_URL", "http://h:99999", "http://"),
    "URL without a host": ("GANGWAY_API_URL", "http:///v1", "http://"),
    "token in the open": ("GANGWAY_API_URL", "http://api.example.com", "GANGWAY_ALLOW_PLAIN_HTTP"),
    "token in the open, by address": ("GANGWAY_API_URL", "http://192.0.2.7:8700", "https://"),
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


@pytest.mark.parametrize("size", [24, 32, 64])
def test_webhook_secrets_have_the_size_of_the_standard(given: pytest.MonkeyPatch, size: int) -> None:
    """Standard Webhooks asks for 24 to 64 bytes."""
    given.setenv("GANGWAY_WEBHOOK_SECRETS", json.dumps({"app": [whsec(size)]}))

    assert Settings.load().webhook_secrets["app"][0].get_secret_value() == whsec(size)


SINGLE = ("GANGWAY_API_TOKEN", "GANGWAY_OPERATOR_TOKEN", "GANGWAY_DATABASE_URL", "GANGWAY_BROKER_URL")


@pytest.mark.parametrize("name", SINGLE)
def test_a_newline_at_the_end_is_no_part_of_a_value(given: pytest.MonkeyPatch, name: str) -> None:
    """Secrets come from files, and files end in a newline."""
    given.setenv(name, f"{GOOD[name]}\n")

    found = getattr(Settings.load(), name.removeprefix("GANGWAY_").lower())

    assert found.get_secret_value() == GOOD[name]


PRIVATE = [
    "http://127.0.0.1:8700",
    "http://[::1]:8700",
    "http://localhost",
    "http://engine-web:8700",
    "http://engine.gangway.svc.cluster.local",
    "https://api.example.com",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_a_token_may_travel_where_nobody_listens(given: pytest.MonkeyPatch, url: str) -> None:
    """Unencrypted on this machine and within a private network, encrypted everywhere."""
    given.setenv("GANGWAY_API_URL", url)

    assert Settings.load().api_url == url


def test_an_operator_may_allow_plain_http(given: pytest.MonkeyPatch) -> None:
    """Somebody who knows the network better can say so."""
    given.setenv("GANGWAY_API_URL", "http://api.example.com")
    given.setenv("GANGWAY_ALLOW_PLAIN_HTTP", "true")

    assert Settings.load().api_url == "http://api.example.com"


def test_settings_of_another_process_can_be_read(given: pytest.MonkeyPatch) -> None:
    """Its environment decides, JSON included."""
    settings = Settings.of({**GOOD, "GANGWAY_WEBHOOK_SECRETS": json.dumps({"shop": [SECRET]})})

    assert list(settings.webhook_secrets) == ["shop"]
    with pytest.raises(SettingsError, match="GANGWAY_API_TOKEN"):
        Settings.of({**GOOD, "GANGWAY_API_TOKEN": "short"})


def test_misspelt_settings_are_noticed() -> None:
    """With the name that was probably meant; what others read is none of them."""
    environment = {
        **GOOD,
        "GANGWAY_LEASES": "3",
        "GANGWAY_OPERATR_TOKEN": "x",
        "GANGWAY_WEB_PORT": "8600",
        "GANGWAY_REDIS_PASSWORD": "x",
        "GANGWAY_ENGINE_TOKENS": "x",
        "GANGWAY_XYZZY": "1",
        "GANGWAY_WEB_SERVICE_HOST": "10.43.0.7",
        "GANGWAY_WEB_SERVICE_PORT_HTTP": "8600",
        "GANGWAY_WEB_PORT_8600_TCP_ADDR": "10.43.0.7",
        "HOME": "/",
    }

    assert misspelt_variables(environment) == {
        "GANGWAY_LEASES": "GANGWAY_LEASE_S",
        "GANGWAY_OPERATR_TOKEN": "GANGWAY_OPERATOR_TOKEN",
        "GANGWAY_XYZZY": None,
    }


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
