"""What this machine has to run: everything that the environment does not point elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.stack.errors import StackError

Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which services run here."""

    worker: bool
    engine: bool
    redis: bool

    @property
    def servers(self) -> list[str]:
        """The services that listen on a port."""
        wanted = {"web": self.worker, "engine": self.engine, "flower": self.worker, "redis": self.redis}
        return [service for service, runs in wanted.items() if runs]


def stack_scope(environment: Environment) -> Scope:
    """The whole stack, without what the environment names."""
    engine = "GANGWAY_API_URL" not in environment
    if not engine and "GANGWAY_API_TOKEN" not in environment:
        raise StackError("GANGWAY_API_URL is set: set GANGWAY_API_TOKEN to a token of that API as well.")
    if engine and "GANGWAY_ENGINE_TOKENS" in environment and "GANGWAY_API_TOKEN" not in environment:
        raise StackError("GANGWAY_ENGINE_TOKENS is set: set GANGWAY_API_TOKEN to one of them as well.")
    return Scope(worker=True, engine=engine, redis="GANGWAY_BROKER_URL" not in environment)


def engine_scope(environment: Environment) -> Scope:
    """The engine alone."""
    return Scope(worker=False, engine=True, redis="GANGWAY_ENGINE_BROKER_URL" not in environment)
