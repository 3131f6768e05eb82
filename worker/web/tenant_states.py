"""The derived state of a tenant as a condition of a query, so that pages can be filtered in the database."""

from sqlalchemy import ColumnElement, and_, not_, or_
from sqlmodel import col, select

from models import Connection, State, Tenant, TenantState
from models.lifecycle import TENANT_PRECEDENCE

WITHOUT_CONNECTIONS = frozenset({TenantState.AWAITING_CREDENTIAL, TenantState.REMOVED})
"""States that a tenant may also be in without any connection."""


def causes_of(wanted: TenantState) -> frozenset[State]:
    """A tenant in this state has a connection in one of these, if it has any connection."""
    if wanted in (TenantState.READY, TenantState.REMOVED):
        return frozenset({State(wanted)})
    return frozenset(state for state, verdict in TENANT_PRECEDENCE if verdict is wanted)


def having_state(wanted: TenantState) -> ColumnElement[bool]:
    """Tenants whose connections add up to this state; says the same as `models.tenant_state`."""
    if wanted is TenantState.REMOVED:
        gone = or_(_has(State.REMOVED), col(Tenant.is_removed))
        return and_(gone, not_(_has(*(set(State) - {State.REMOVED}))))
    condition = and_(_has(*causes_of(wanted)), not_(_has(*_worse_than(wanted))))
    if wanted is TenantState.AWAITING_CREDENTIAL:
        return or_(condition, and_(not_(_has(*State)), not_(col(Tenant.is_removed))))
    return condition


def _worse_than(wanted: TenantState) -> list[State]:
    worse: list[State] = []
    for state, verdict in TENANT_PRECEDENCE:
        if verdict is wanted:
            break
        worse.append(state)
    return worse


def _has(*states: State) -> ColumnElement[bool]:
    """Asked for one tenant after the other: PostgreSQL would turn EXISTS into a join with all connections."""
    mine = (
        select(Connection.id)
        .where(col(Connection.tenant_id) == col(Tenant.id), col(Connection.state).in_(sorted(states)))
        .correlate(Tenant)
        .limit(1)
    )
    return mine.scalar_subquery().is_not(None)
