"""Everything that can be configured, read from `GANGWAY_ENGINE_*`; secrets have no defaults."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from foundation.broker import check_broker_url
from foundation.database import check_database_url
from foundation.environment import settings_in, unknown_variables, usable_token, variables_of
from foundation.vault import Vault

PREFIX: Final = "GANGWAY_ENGINE_"
STACK_VARIABLE: Final = "GANGWAY_ENGINE_PORT"
"""Read by `gangway up`, and handed on to every process."""


class SettingsError(Exception):
    """The environment is incomplete or wrong; the message names the variables, never their values."""


class ProviderOverrides(BaseModel):
    """What an installation may change about a provider without editing its file."""

    model_config = ConfigDict(extra="forbid")

    base_url: str | None = Field(default=None, pattern=r"^https?://[^/]")
    authorize_url: str | None = Field(default=None, pattern=r"^https?://[^/]")
    token_url: str | None = Field(default=None, pattern=r"^https?://[^/]")
    client_id: str | None = None
    client_secret: SecretStr | None = None
    """The installation's own OAuth app, for credentials that name none; of a GitHub App, its private key.

    A GitHub App serves the default organisation's credentials only (see docs/providers.md).
    """


class Settings(BaseSettings):
    """The engine's settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore")

    database_url: SecretStr
    broker_url: SecretStr
    vault_keys: SecretStr
    tokens: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Bearer tokens of the default organisation, valid while they stand here: `a,b` or a JSON list."""
    providers: dict[str, ProviderOverrides] = Field(default_factory=dict)
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """Where browsers reach this service; what the request says when not set."""
    request_deadline_s: float = Field(default=10.0, gt=0, le=300)
    """A request that creates commits within this time of being received, or not at all."""
    work_threads: int = Field(default=8, ge=1, le=64)
    watch_floor_s: float = Field(default=1.0, ge=0.1, le=3_600)
    """How often a `continuous` sync with much going on is looked at."""
    watch_ceiling_s: float = Field(default=30.0, ge=0.1, le=86_400)
    """How often one is looked at where nothing has happened for long."""
    whole_pass_every_s: float = Field(default=86_400.0, ge=1, le=31 * 86_400)
    """How often everything is read again, to see what no event or list of changes told."""
    changes_kept_days: int = Field(default=7, ge=7, le=3_660)
    """How long `GET /v1/syncs?changed_since=` tells of a deleted sync."""
    log_level: str = "INFO"

    @field_validator("tokens", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        value = value.strip()
        return (
            json.loads(value)
            if value.startswith("[")
            else [part for part in value.split(",") if part.strip()]
        )

    @field_validator("tokens")
    @classmethod
    def _usable_tokens(cls, tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        return tuple(SecretStr(usable_token(token.get_secret_value())) for token in tokens)

    @field_validator("database_url", "broker_url")
    @classmethod
    def _usable_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = value.get_secret_value().strip()
        check = check_broker_url if info.field_name == "broker_url" else check_database_url
        check(url)
        return SecretStr(url)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment, or say in one sentence per variable what is missing or wrong."""
        return cls._read(cls)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment of a process that is about to be started."""
        return cls._read(lambda: settings_in(cls, environment))

    @classmethod
    def _read(cls, read: Callable[[], Self]) -> Self:
        try:
            return read()
        except SourceError as exc:
            raise SettingsError(f"{PREFIX}*: {exc}") from None
        except ValidationError as exc:
            errors = exc.errors(include_input=False)
        raise SettingsError("; ".join(f"{_variable(error['loc'])}: {error['msg']}" for error in errors))

    def vault(self) -> Vault:
        return Vault.from_text(self.vault_keys.get_secret_value())


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that look like settings of ours but are none, each with the name nearest to it."""
    known = variables_of(Settings) | {STACK_VARIABLE}
    return unknown_variables(environment, prefix=PREFIX, known=known)


def _variable(loc: tuple[int | str, ...]) -> str:
    return PREFIX + "__".join(str(part).upper() for part in loc)
