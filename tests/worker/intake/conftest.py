"""An intake with an inbox before it, at a fixed time."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from foundation.database import Database
from foundation.vault import Vault, generate_key
from tests.support.events import AT
from tests.support.intake import message
from worker.intake.accept import Accepted, Intake
from worker.intake.inbox import Inbox
from worker.plans import Plans


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    with time_machine.travel(AT + timedelta(hours=1), tick=True):
        yield


@pytest.fixture
def vault() -> Vault:
    return Vault.from_text(generate_key())


@pytest.fixture
def intake(vault: Vault) -> Intake:
    return Intake(vault, Plans.load())


@pytest.fixture
def inbox(database: Database, intake: Intake) -> Iterator[Inbox]:
    inbox = Inbox(database, intake)
    yield inbox
    inbox.close()


@pytest.fixture
def accept(inbox: Inbox) -> Callable[..., Accepted]:
    """Store one message and wait for the answer."""

    def accept(body: dict[str, Any], message_id: str | None = None) -> Accepted:
        return inbox.accept(message(body, message_id)).result(timeout=30)

    return accept
