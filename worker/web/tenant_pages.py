"""Pages of tenants, oldest first. What one page costs does not grow with the number of tenants."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, tuple_
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from models import Connection, State, Tenant, TenantState
from worker.web.tenant_states import WITHOUT_CONNECTIONS, causes_of, having_state

FEW: Final = 10_000
"""So many connections are looked at one by one to find the tenants of a state; for more, the tenants are."""
FEW_AT_MOST: Final = 10 * FEW
"""No more than these are looked at. It also tells the database how few they are."""
SEARCHED: Final = 10_000
"""So many tenants are looked at one by one for one page."""

Position = tuple[datetime, UUID]
_POSITION: Final = tuple_(col(Tenant.created_at), col(Tenant.id))


@dataclass(frozen=True, slots=True)
class Page:
    """Some tenants, and after which position the next page begins, if there is one."""

    tenants: list[Tenant]
    next: Position | None


def page_of_tenants(session: Session, state: TenantState | None, limit: int, after: Position | None) -> Page:
    """The next tenants in this state, or of all.

    A state that few connections cause is looked for among these. For any other the next tenants are searched,
    so a page may have fewer than `limit` although there is a next one.
    """
    if state is None:
        return _page(session, [], limit, after, until=None)
    conditions = [having_state(state)]
    if state not in WITHOUT_CONNECTIONS and _are_few(session, causes_of(state)):
        some = select(Connection.tenant_id).where(col(Connection.state).in_(sorted(causes_of(state))))
        conditions.append(col(Tenant.id).in_(some.limit(FEW_AT_MOST)))
        return _page(session, conditions, limit, after, until=None)
    return _page(session, conditions, limit, after, until=_end_of_search(session, after))


def encoded(position: Position) -> str:
    """The position as a cursor."""
    at, tenant_id = position
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), tenant_id.hex]).encode()).decode()


def decoded(cursor: str) -> Position:
    """The position of a cursor; raises `ValueError` for what is none."""
    try:
        at, tenant_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return datetime.fromisoformat(at).astimezone(UTC), UUID(tenant_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise ValueError("expected the next_cursor of an earlier page") from None


def _page(
    session: Session,
    conditions: list[ColumnElement[bool]],
    limit: int,
    after: Position | None,
    *,
    until: Position | None,
) -> Page:
    bounds = _between(after, until)
    found = session.exec(
        select(Tenant)
        .where(*bounds, *conditions)
        .order_by(col(Tenant.created_at), col(Tenant.id))
        .limit(limit + 1)
    ).all()
    if len(found) <= limit:
        return Page(list(found), until)
    shown = list(found[:limit])
    return Page(shown, (shown[-1].created_at, shown[-1].id))


def _end_of_search(session: Session, after: Position | None) -> Position | None:
    """The last tenant that one page looks at; none if all that are left can be."""
    last = (
        select(col(Tenant.created_at), col(Tenant.id))
        .where(*_between(after, None))
        .order_by(col(Tenant.created_at), col(Tenant.id))
        .offset(SEARCHED - 1)
        .limit(1)
    )
    return session.exec(last).first()


def _between(after: Position | None, until: Position | None) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = []
    if after is not None:
        bounds.append(after < _POSITION)
    if until is not None:
        bounds.append(until >= _POSITION)
    return bounds


def _are_few(session: Session, states: frozenset[State]) -> bool:
    """Whether no state has more than `FEW` connections. Each is counted in the order of an index."""
    return not any(session.exec(_further_in(state)).first() for state in states)


def _further_in(state: State) -> SelectOfScalar[UUID]:
    mine = select(Connection.id).where(col(Connection.state) == state)
    return mine.order_by(col(Connection.state), col(Connection.created_at)).offset(FEW).limit(1)
