"""What a tenant's connections add up to, found with a bounded number of steps of an index."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy import exists
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from models import Connection, State, Tenant, TenantState, tenant_state

_STATES: Final = tuple(State)


def state_of(tenant: Tenant, states: Collection[State]) -> TenantState:
    """What a tenant's connections add up to; one without connections is told by its own presence."""
    if not states and tenant.is_removed:
        return TenantState.REMOVED
    return tenant_state(states)


def states_of(session: Session, tenant_ids: Collection[UUID]) -> dict[UUID, set[State]]:
    """The states that each tenant's connections are in: one step of an index for each state."""
    if not tenant_ids:
        return {}
    are_there = [
        exists().where(col(Connection.tenant_id) == col(Tenant.id), col(Connection.state) == state)
        for state in _STATES
    ]
    asked = session.execute(_of(tenant_ids).add_columns(*are_there))
    return {
        row[0]: {state for state, is_there in zip(_STATES, row[1:], strict=True) if is_there} for row in asked
    }


def with_more_connections_than(session: Session, count: int, tenant_ids: Collection[UUID]) -> set[UUID]:
    """Those of these tenants that have more connections than this. No more than these are counted."""
    if not tenant_ids:
        return set()
    further = (
        select(Connection.id)
        .where(col(Connection.tenant_id) == col(Tenant.id))
        .correlate(Tenant)
        .offset(count)
        .limit(1)
    )
    return set(session.exec(_of(tenant_ids).where(further.exists())))


def _of(tenant_ids: Collection[UUID]) -> SelectOfScalar[UUID]:
    return select(Tenant.id).where(col(Tenant.id).in_(list(tenant_ids)))
