"""The derived state of a tenant as a condition of a query, so that pages can be filtered in the database."""

from sqlalchemy import ColumnElement, and_, exists, not_, or_
from sqlmodel import col, select

from models import Connection, State, Tenant, TenantState
from models.lifecycle import TENANT_PRECEDENCE


def having_state(wanted: TenantState) -> ColumnElement[bool]:
    """Tenants whose connections add up to this state; says the same as `models.tenant_state`."""
    if wanted is TenantState.REMOVED:
        gone = or_(_has(State.REMOVED), col(Tenant.is_removed))
        return and_(gone, not_(_has(*(set(State) - {State.REMOVED}))))
    worse: list[State] = []
    matching: list[State] = []
    for state, verdict in TENANT_PRECEDENCE:
        if verdict is wanted:
            matching.append(state)
        elif not matching:
            worse.append(state)
    if wanted is TenantState.READY:
        return and_(_has(State.READY), not_(_has(*worse)))
    condition = and_(_has(*matching), not_(_has(*worse)))
    if wanted is TenantState.AWAITING_CREDENTIAL:
        return or_(condition, and_(not_(_has(*State)), not_(col(Tenant.is_removed))))
    return condition


def _has(*states: State) -> ColumnElement[bool]:
    mine = select(col(Connection.id)).where(
        col(Connection.tenant_id) == col(Tenant.id), col(Connection.state).in_(states)
    )
    return exists(mine)
