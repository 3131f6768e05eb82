"""A configured stack that is not started."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.stack.configuration import Configuration, configure
from worker.stack.ports import DEFAULT_PORTS
from worker.stack.scope import Scope


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Configuration]:
    """Configures a stack in the test's directory: by default all of it, with nothing set or remembered."""

    def make(
        *,
        scope: Scope | None = None,
        environment: dict[str, str] | None = None,
        remembered: dict[str, str] | None = None,
    ) -> Configuration:
        return configure(
            tmp_path,
            scope or Scope(worker=True, engine=True, redis=True),
            environment=environment or {},
            remembered=remembered or {},
            ports=DEFAULT_PORTS,
        )

    return make


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the operator had set nothing."""
    for name in list(os.environ):
        if name.startswith("GANGWAY_"):
            monkeypatch.delenv(name)
