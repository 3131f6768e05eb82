"""What an operator may set, read from the environment (`GANGWAY_*`) and from the one-machine stack's file."""

from functools import cache
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from standardwebhooks.webhooks import Webhook

from foundation.vault import Vault, VaultError

PREFIX: Final = "GANGWAY_"
STACK_FILE: Final = "stack.env"
Seconds = Annotated[float, Field(gt=0)]


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
    sweep_every_s: Seconds = 1
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
    try:
        Webhook(secret.get_secret_value())
    except Exception:  # noqa: BLE001  # the library raises whatever base64 raises
        raise ValueError(f"source {source!r}: expected whsec_ followed by base64") from None


def _explain(exc: ValidationError) -> str:
    lines = ["Gangway cannot start with these settings (`gangway up` makes those that are missing):"]
    for error in exc.errors(include_input=False, include_url=False):
        name = PREFIX + "__".join(str(part) for part in error["loc"]).upper()
        lines.append(f"  {name}: {error['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
