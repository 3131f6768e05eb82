"""The processes of a stack, and which come after which."""

import sys
import sysconfig
from pathlib import Path
from typing import Final

from worker.stack.configuration import REDIS_PASSWORD, Configuration
from worker.stack.redis import redis_server, write_redis_config
from worker.supervisor import HOST, HttpOk, Probe, ProcessSpec, TcpOpen

GANGWAY: Final = (sys.executable, "-P", str(Path(sysconfig.get_path("scripts")) / "gangway"))
ENGINE: Final = (sys.executable, "-P", "-m", "engine")  # -P: a folder `engine` in the current one is not it


def processes(config: Configuration) -> list[ProcessSpec]:
    """Everything that this stack runs."""
    specs: list[ProcessSpec] = []
    if config.scope.redis:
        specs.append(_redis(config))
    if config.scope.engine:
        specs += _engine(config)
    if config.scope.worker:
        specs += _worker(config)
    return specs


def _redis(config: Configuration) -> ProcessSpec:
    port = config.ports["redis"]
    path = write_redis_config(config.data_dir, port, password=config.value_of(REDIS_PASSWORD))
    return ProcessSpec("redis", (redis_server(), str(path)), env=config.plain_env, ready=TcpOpen(port))


def _engine(config: Configuration) -> list[ProcessSpec]:
    env, port = config.engine_env, config.ports["engine"]
    after = _after(config, "engine-migrate")
    return [
        ProcessSpec("engine-migrate", (*ENGINE, "migrate"), env, runs_once=True),
        ProcessSpec("engine-web", (*ENGINE, "web", *_listen(port)), env, after, HttpOk(port, "/healthz")),
        ProcessSpec("engine-work", (*ENGINE, "work"), env, after),
    ]


def _worker(config: Configuration) -> list[ProcessSpec]:
    env, ports = config.worker_env, config.ports
    after = _after(config, "migrate")
    working = after | {"engine-web"} if config.scope.engine else after
    queues = ("onboarding", "polling")
    return [
        ProcessSpec("migrate", (*GANGWAY, "migrate"), env, runs_once=True),
        _server(config, "web", after, HttpOk(ports["web"], "/healthz")),
        *(ProcessSpec(f"worker-{queue}", _work(queue), env, working) for queue in queues),
        ProcessSpec("beat", (*GANGWAY, "beat"), env, after),
        _server(config, "flower", after, TcpOpen(ports["flower"])),
    ]


def _server(config: Configuration, name: str, after: frozenset[str], ready: Probe) -> ProcessSpec:
    return ProcessSpec(name, (*GANGWAY, name, *_listen(config.ports[name])), config.worker_env, after, ready)


def _work(queue: str) -> tuple[str, ...]:
    return (*GANGWAY, "work", "--queues", f"{queue},maintenance", "--name", queue)


def _after(config: Configuration, migrated: str) -> frozenset[str]:
    return frozenset({migrated, "redis"} if config.scope.redis else {migrated})


def _listen(port: int) -> tuple[str, ...]:
    return "--host", HOST, "--port", str(port)
