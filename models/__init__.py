"""What is true: the worker's tables and the lifecycle of a connection."""

from pathlib import Path
from typing import Final

from models.attempt import Attempt, AttemptOutcome
from models.base import Row
from models.connection import Connection
from models.inbound_event import InboundEvent
from models.lifecycle import State, Step, TenantState, tenant_state
from models.tenant import Tenant
from models.transition import Transition

MIGRATIONS: Final = Path(__file__).parent / "migrations"
"""Where Alembic finds this package's migrations."""

__all__ = [
    "MIGRATIONS",
    "Attempt",
    "AttemptOutcome",
    "Connection",
    "InboundEvent",
    "Row",
    "State",
    "Step",
    "Tenant",
    "TenantState",
    "Transition",
    "tenant_state",
]
