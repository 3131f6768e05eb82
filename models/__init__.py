"""What is true: the worker's tables and the lifecycle of a connection."""

from pathlib import Path
from typing import Final

from models.attempt import Attempt, AttemptOutcome
from models.base import Row
from models.change_cursor import ChangeCursor
from models.connection import Connection
from models.inbound_event import InboundEvent
from models.lifecycle import State, Step, TenantState, tenant_state
from models.tenant import Tenant
from models.transition import Move, Transition
from models.work import Lane, Work

MIGRATIONS: Final = Path(__file__).parent / "migrations"
"""Where Alembic finds this package's migrations."""

__all__ = [
    "MIGRATIONS",
    "Attempt",
    "AttemptOutcome",
    "ChangeCursor",
    "Connection",
    "InboundEvent",
    "Lane",
    "Move",
    "Row",
    "State",
    "Step",
    "Tenant",
    "TenantState",
    "Transition",
    "Work",
    "tenant_state",
]
