"""What an operator may set, read from the environment (`GANGWAY_*`) and from the one-machine stack's file."""

import base64
import logging
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSettingError

from foundation.addresses import http_host, is_private_host
from foundation.environment import settings_in, unknown_variables, usable_token, variables_of
from foundation.vault import Vault, VaultError
from worker.intake.signatures import decoded
from worker.redaction import redact

PREFIX: Final = "GANGWAY_"
STACK_FILE: Final = "stack.env"
HEADING: Final = "Gangway cannot start with these settings (`gangway up` makes those that are missing):"
PLAIN_HTTP: Final = (
    "expected https://, since http:// shows the API token to the network; "
    f"{PREFIX}ALLOW_PLAIN_HTTP=true allows it"
)
STACK_VARIABLES: Final = frozenset(
    {f"{PREFIX}{service}_PORT" for service in ("WEB", "ENGINE", "FLOWER", "REDIS")}
    | {f"{PREFIX}REDIS_PASSWORD"}
)
"""Read by `gangway up`, and handed on to every process."""
WEBHOOK_SECRET_BYTES: Final = range(24, 65)
"""As Standard Webhooks says."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(Exception):
    """The service is not configured well enough to start. Names each setting, never its value."""


class Readable(BaseSettings):
    """Settings, or those of them that a command needs, as they are found in an environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def load(cls, data_dir: Path | None = None) -> Self:
        """Read the environment, and beneath it the one-machine stack's file if there is one."""
        stack_file = (data_dir or default_data_dir()) / STACK_FILE
        return cls._read(lambda: cls(_env_file=stack_file if stack_file.exists() else None))

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment of a process that is about to be started."""
        return cls._read(lambda: settings_in(cls, environment))

    @classmethod
    def _read(cls, read: Callable[[], Self]) -> Self:
        try:
            return read()
        except ValidationError as exc:
            raise SettingsError(_explain(exc)) from None
        except UnreadableSettingError as exc:  # its cause holds the value
            raise SettingsError(_explain_unreadable(str(exc))) from None


class Settings(Readable):
    """Every setting of the worker. Secrets have no default: the one-machine stack makes its own, once."""

    database_url: SecretStr
    broker_url: SecretStr
    allow_plain_http: bool = False
    """Whether our token may travel unencrypted to an API on a public name."""
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
    """How often a ready connection is looked at, where the Management API has no feed of changes."""
    refusals: Annotated[int, Field(ge=1)] = 3
    """So many refusals in a row are needed before a connection is called failed ..."""
    refusal_lasts_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 120
    """... and so much time between the first and the last of them."""
    api_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Requests per second that all workers together may send to the Management API; unlimited if unset."""
    api_burst: Annotated[int, Field(ge=0)] = 0
    """How many of them may be sent at once; by default as many as in one second."""
    history_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 180
    """How long attempts, moves and received events are kept."""
    unannounced_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30
    """How long a tenant is kept of whom events spoke, but whose `tenant.created` has never come."""
    failed_secret_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 14
    """How long the sealed credential of a connection is kept that failed before it could be imported."""
    webhook_tolerance_s: Annotated[float, Field(gt=0, le=300)] = 300
    stalled_after_s: Seconds = 45
    """A worker that makes no progress for so long, while messages wait, exits to be restarted."""

    intake_deadline_s: Seconds = 10
    """How long a webhook waits to be stored before it is answered 503."""

    @field_validator("api_url")
    @classmethod
    def _plain_base(cls, value: str, info: ValidationInfo) -> str:
        host = http_host(value.strip())
        if host is None:
            raise ValueError("expected a URL that starts with http:// or https://")
        is_plain = value.strip().startswith("http://")
        if is_plain and not info.data.get("allow_plain_http") and not is_private_host(host):
            raise ValueError(PLAIN_HTTP)
        return value.strip().rstrip("/").removesuffix("/v1")

    @field_validator("database_url", "broker_url")
    @classmethod
    def _usable_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        # imported here, or every command would wait for SQLAlchemy and Redis before it starts
        from foundation.broker import check_broker_url
        from foundation.database import check_database_url

        url = value.get_secret_value().strip()
        check = check_broker_url if info.field_name == "broker_url" else check_database_url
        check(url)
        return SecretStr(url)

    @field_validator("webhook_secrets")
    @classmethod
    def _usable_secrets(cls, value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
        return usable_webhook_secrets(value)

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
    def _usable_token(cls, value: SecretStr) -> SecretStr:
        return SecretStr(usable_token(value.get_secret_value()))

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


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that look like settings of ours but are none, each with the name nearest to it."""
    known = variables_of(Settings) | STACK_VARIABLES
    return unknown_variables(environment, prefix=PREFIX, known=known, not_ours=["GANGWAY_ENGINE_"])


def usable_webhook_secrets(value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
    """Return the secrets of each source. Raises `ValueError`, never quoting one."""
    for source, secrets in value.items():
        if not secrets:
            raise ValueError(f"source {source!r} has no secret")
        for secret in secrets:
            _check_webhook_secret(source, secret)
    return value


def _check_webhook_secret(source: str, secret: SecretStr) -> None:
    """Strictly: the library passes over characters that are no base64, and would use another secret."""
    encoded = secret.get_secret_value().removeprefix("whsec_").rstrip("=")
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) not in WEBHOOK_SECRET_BYTES:
        raise ValueError(f"source {source!r}: expected whsec_ followed by the base64 of 24 to 64 bytes")


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
