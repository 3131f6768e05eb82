"""Messages as the intake gets them, and what they come to."""

import json
from typing import Any
from uuid import uuid4

from sqlmodel import select

from foundation.database import Database
from foundation.vault import Vault
from models import Connection, InboundEvent, Tenant, Transition, Work
from tests.support.events import encoded
from tests.support.rows import all_of
from worker.intake.accept import Intake, Message, Outcome
from worker.intake.events import UnknownEvent, parse


def message(body: dict[str, Any], message_id: str | None = None, source: str = "app") -> Message:
    """A verified message with this body."""
    read = parse(encoded(body))
    assert not isinstance(read, UnknownEvent)
    return Message(source, message_id or uuid4().hex, read.digest, read, correlation_id="corr")


def accepted(database: Database, intake: Intake, *messages: Message) -> list[Outcome]:
    """Store these messages in one transaction."""
    with database.write() as session:
        session.autoflush = False
        return intake.accept_all(session, messages, now=database.now(session))


def outcome(database: Database, vault: Vault) -> dict[str, Any]:
    """What counts of the rows of one tenant."""
    (tenant,) = all_of(database, Tenant)
    due = {(row.connection_id, row.step) for row in all_of(database, Work) if row.due_at is not None}
    found: dict[str, Any] = {
        "tenant": (tenant.name, tenant.plan, tenant.metadata_, tenant.is_removed, tenant.is_announced)
    }
    for row in all_of(database, Connection):
        sealed = row.sealed_credential
        opened = json.loads(vault.open(sealed, context=str(row.id))) if sealed else None
        steps = sorted(step for connection_id, step in due if connection_id == row.id)
        found[row.slot] = (row.state, row.overrides, opened, steps)
    return found


def clear(database: Database) -> None:
    with database.write() as session:
        for kind in (Transition, InboundEvent, Work, Connection, Tenant):
            for row in session.exec(select(kind)):
                session.delete(row)
            session.flush()
