"""What an operator may set, read from the environment (`GANGWAY_*`) and from the one-machine stack's file."""

import base64
import logging
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSettingError

from foundation.vault import Vault, VaultError
from worker.intake.signatures import decoded
from worker.redaction import redact

PREFIX: Final = "GANGWAY_"
STACK_FILE: Final = "stack.env"
HEADING: Final = "Gangway cannot start with these settings (`gangway up` makes those that are missing):"
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(Exception):
    """The service is not configured well enough to start. Names each setting, never its value."""


class Settings(BaseSettings):
    """Every setting of the worker. Secrets have no default: the one-machine stack makes its own, once."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr
    broker_url: SecretStr
    api_url: str
    """Base URL of the Management API, without `/v1`."""
    api_token: SecretStr
    webhook_secrets: dict[str, list[SecretStr]]
    """For each source of webhooks its Standard Webhooks secrets, several while one is being rotated."""
    vault_keys: SecretStr
    """`id:base64,id:base64`: the first key seals, every key opens."""
    operator_token: SecretStr

    data_dir: Path = Path(".gangway")
    plans_file: Path | None = None
    log_level: str = "INFO"

    lease_s: Seconds = 10
    """How long a claim holds unless renewed; a killed worker's rows are due again after it."""
    sweep_every_s: Seconds = 0.5
    create_settle_s: Seconds = 60
    """How long the Management API may still take to commit a create whose answer we never saw."""
    max_attempts: Annotated[int, Field(ge=1)] = 8
    parked_retry_s: Seconds = 900
    """The slow pace at which a connection that used up its attempts is tried again."""
    health_poll_s: Seconds = 300
    """How often a ready connection is looked at."""
    webhook_tolerance_s: Annotated[float, Field(gt=0, le=300)] = 300
    stalled_after_s: Seconds = 45
    """A worker that makes no progress for so long, while messages wait, exits to be restarted."""

    intake_deadline_s: Seconds = 10
    """How long a webhook waits to be stored before it is answered 503."""

    @field_validator("api_url")
    @classmethod
    def _plain_base(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected a URL that starts with http:// or https://")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("webhook_secrets")
    @classmethod
    def _usable_secrets(cls, value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
        for source, secrets in value.items():
            if not secrets:
                raise ValueError(f"source {source!r} has no secret")
            for secret in secrets:
                _check_webhook_secret(source, secret)
        return value

    @field_validator("vault_keys")
    @classmethod
    def _usable_keys(cls, value: SecretStr) -> SecretStr:
        try:
            Vault.from_text(value.get_secret_value())
        except VaultError as exc:
            raise ValueError(str(exc)) from None
        return value

    @field_validator("api_token", "operator_token")
    @classmethod
    def _not_empty(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:
            raise ValueError("expected at least 16 characters")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()

    @field_validator("webhook_secrets")
    @classmethod
    def _no_shared_secret(cls, value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
        owners: dict[bytes, str] = {}
        for source, secrets in value.items():
            for secret in secrets:
                owner = owners.setdefault(decoded(secret.get_secret_value()), source)
                if owner != source:
                    raise ValueError(f"sources {owner!r} and {source!r} share a secret: give each its own")
        return value

    def vault(self) -> Vault:
        return Vault.from_text(self.vault_keys.get_secret_value())

    @classmethod
    def load(cls, data_dir: Path | None = None) -> Self:
        """Read the environment, and beneath it the one-machine stack's file if there is one."""
        stack_file = (data_dir or default_data_dir()) / STACK_FILE
        try:
            return cls(_env_file=stack_file if stack_file.exists() else None)
        except ValidationError as exc:
            raise SettingsError(_explain(exc)) from None
        except UnreadableSettingError as exc:  # its cause holds the value
            raise SettingsError(_explain_unreadable(str(exc))) from None


@cache
def settings() -> Settings:
    """This process's settings, read once."""
    return Settings.load()


def default_data_dir() -> Path:
    """Where the one-machine stack keeps its state: `GANGWAY_DATA_DIR`, else `.gangway` here."""

    class Where(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")
        data_dir: Path = Path(".gangway")

    return Where().data_dir


def _check_webhook_secret(source: str, secret: SecretStr) -> None:
    """Strictly: the library passes over characters that are no base64, and would use another secret."""
    encoded = secret.get_secret_value().removeprefix("whsec_").rstrip("=")
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        decoded = b""
    if not decoded:
        raise ValueError(f"source {source!r}: expected whsec_ followed by base64")


def _explain(exc: ValidationError) -> str:
    lines = [HEADING]
    for error in exc.errors(include_input=False, include_url=False):
        name = PREFIX + "__".join(redact(str(part)).upper() for part in error["loc"])
        lines.append(f"  {name}: {redact(error['msg']).removeprefix('Value error, ')}")
    return "\n".join(lines)


def _explain_unreadable(message: str) -> str:
    named = re.search(r'field "(\w+)"', message)
    name = f"{PREFIX}{named[1].upper()}" if named else "a setting"
    return f"{HEADING}\n  {name}: expected JSON"
