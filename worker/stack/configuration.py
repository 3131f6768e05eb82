"""The settings of a stack: what the operator set wins, secrets are made once, the rest follows."""

import base64
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from engine.settings import Settings as EngineSettings
from foundation.vault import generate_key
from worker.settings import STACK_FILE
from worker.stack.ports import port_variable
from worker.stack.redis import REDIS_HOME
from worker.stack.scope import Environment, Scope
from worker.supervisor import HOST

OURS: Final = "GANGWAY_"
ENGINES: Final = "GANGWAY_ENGINE_"
REDIS_PASSWORD: Final = "GANGWAY_REDIS_PASSWORD"  # noqa: S105  # the variable's name
DATABASES: Final = ("gangway.db", "engine.db")
LOGS: Final = "logs"
SETTLE_MARGIN_S: Final = 2.0


@dataclass(frozen=True)
class Configuration:
    """All that the stack's processes are told."""

    data_dir: Path
    scope: Scope
    ports: Mapping[str, int]
    environment: Environment = field(repr=False)
    """What the operator set."""
    own: Environment = field(repr=False)
    """What the stack adds to it, and keeps in its file."""

    @property
    def env_file(self) -> Path:
        return self.data_dir / STACK_FILE

    @property
    def logs(self) -> Path:
        return self.data_dir / LOGS

    @property
    def kept(self) -> dict[str, str]:
        """What goes into the file: nothing that the operator set, under whatever name."""
        theirs = set(self.environment.values())
        return {name: value for name, value in self.own.items() if value not in theirs}

    @property
    def worker_env(self) -> dict[str, str]:
        """For the worker's processes, which have no business with the engine's secrets."""
        return self._env(lambda name: not name.startswith(ENGINES)) | {"GANGWAY_DATA_DIR": str(self.data_dir)}

    @property
    def engine_env(self) -> dict[str, str]:
        """For the engine's processes, which have no business with the worker's secrets."""
        return self._env(lambda name: name.startswith(ENGINES) or not name.startswith(OURS))

    @property
    def plain_env(self) -> dict[str, str]:
        """For a process that is not ours."""
        return self._env(lambda name: not name.startswith(OURS))

    def value_of(self, name: str) -> str:
        return {**self.own, **self.environment}[name]

    def url_of(self, service: str) -> str:
        return f"http://{HOST}:{self.ports[service]}"

    def _env(self, is_meant: Callable[[str], bool]) -> dict[str, str]:
        everything = {**self.own, **self.environment, **_past_proxies(self.environment)}
        return {name: value for name, value in everything.items() if is_meant(name)}


def configure(
    data_dir: Path,
    scope: Scope,
    *,
    environment: Environment,
    remembered: Environment,
    ports: Mapping[str, int],
) -> Configuration:
    """Fill in whatever the operator left open; what an earlier run made or chose is kept."""
    known = {**remembered, **environment}
    own = dict(remembered)
    own |= {name: known.get(name) or make() for name, make in _secrets_of(scope).items()}
    own |= {port_variable(service): str(port) for service, port in ports.items()}
    if scope.redis:
        own |= _broker_urls(scope, ports["redis"], password=own[REDIS_PASSWORD])
    if scope.worker:
        own["GANGWAY_DATABASE_URL"] = _sqlite(data_dir / DATABASES[0])
    if scope.engine:
        own |= _engine_values(data_dir, ports["engine"], {**own, **environment})
    elif scope.worker:
        own.pop("GANGWAY_CREATE_SETTLE_S", None)  # it was measured for our engine, not for this API
    own = {name: value for name, value in own.items() if name not in environment}
    return Configuration(data_dir, scope, ports, environment, own)


def forget(data_dir: Path) -> None:
    """Remove what a stack keeps in its directory, and nothing else."""
    for name in (LOGS, REDIS_HOME):
        shutil.rmtree(data_dir / name, ignore_errors=True)
    (data_dir / STACK_FILE).unlink(missing_ok=True)
    for database in DATABASES:
        for path in data_dir.glob(f"{database}*"):  # SQLite and its locks have files beside the database
            path.unlink()


def _past_proxies(environment: Environment) -> dict[str, str]:
    """The processes here reach each other directly, also where the way out is a proxy."""
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY", "")
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(filter(None, (exempt, HOST))))


def _secrets_of(scope: Scope) -> dict[str, Callable[[], str]]:
    makers: dict[str, Callable[[], str]] = {}
    if scope.redis:
        makers |= {REDIS_PASSWORD: _token}
    if scope.engine:
        makers |= {"GANGWAY_API_TOKEN": _token, "GANGWAY_ENGINE_VAULT_KEYS": generate_key}
    if scope.worker:
        makers |= {
            "GANGWAY_OPERATOR_TOKEN": _token,
            "GANGWAY_VAULT_KEYS": generate_key,
            "GANGWAY_WEBHOOK_SECRETS": _webhook_secrets,
        }
    return makers


def _token() -> str:
    return secrets.token_urlsafe(32)


def _webhook_secrets() -> str:
    return json.dumps({"app": [f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"]})


def _sqlite(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string()


def _broker_urls(scope: Scope, port: int, *, password: str) -> dict[str, str]:
    """One database for both services: Flower sees the tasks of both. Their queues have different names."""
    url = f"redis://:{password}@{HOST}:{port}/0"
    urls = {"GANGWAY_ENGINE_BROKER_URL": url}
    return urls | {"GANGWAY_BROKER_URL": url} if scope.worker else urls


def _engine_values(data_dir: Path, port: int, known: Environment) -> dict[str, str]:
    default_deadline_s = EngineSettings.model_fields["request_deadline_s"].default
    deadline_s = float(known.get("GANGWAY_ENGINE_REQUEST_DEADLINE_S", default_deadline_s))
    values = {
        "GANGWAY_API_URL": f"http://{HOST}:{port}",
        "GANGWAY_CREATE_SETTLE_S": f"{deadline_s + SETTLE_MARGIN_S:g}",
        "GANGWAY_ENGINE_DATABASE_URL": _sqlite(data_dir / DATABASES[1]),
        "GANGWAY_ENGINE_TOKENS": known["GANGWAY_API_TOKEN"],
    }
    if "GANGWAY_ENGINE_BROKER_URL" not in known:
        values["GANGWAY_ENGINE_BROKER_URL"] = known["GANGWAY_BROKER_URL"]
    return values
