"""What is due: found fairly, a few rows of every tenant before many of one."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, false, func, not_, or_
from sqlmodel import Session, col, select

from models import Connection, State, Step
from models.lifecycle import next_step

PER_TENANT: Final = 25
PER_SWEEP: Final = 1_000

DueRows = dict[Step, list[UUID]]


def take_due(session: Session, *, now: datetime, hint_for: timedelta, steps: Iterable[Step]) -> DueRows:
    """Find what is due, nobody holds and no message is under way about; note that one will be.

    Any number of sweeps may run at once: each row is offered by one of them.
    """
    wanted = set(steps)
    free = (
        col(Connection.due_at) <= now,
        or_(col(Connection.leased_until).is_(None), col(Connection.leased_until) <= now),
        or_(col(Connection.hinted_until).is_(None), col(Connection.hinted_until) <= now),
        not_(_asks_for(set(Step) - wanted)),  # what has no room must not stand in the way of what has
    )
    turn = func.row_number().over(partition_by=col(Connection.tenant_id), order_by=col(Connection.due_at))
    ranked = select(col(Connection.id).label("id"), turn.label("turn")).where(*free).subquery()
    fair = (
        select(ranked.c.id)
        .where(ranked.c.turn <= PER_TENANT)
        .order_by(ranked.c.turn, ranked.c.id)
        .limit(PER_SWEEP)
    )
    rows = session.exec(
        select(Connection)
        .where(col(Connection.id).in_(fair), *free)
        .order_by(col(Connection.due_at))
        .with_for_update(skip_locked=True)
    )
    due: defaultdict[Step, list[UUID]] = defaultdict(list)
    for row in rows:
        step = row.next_step
        if step is None:
            row.due_at = None
        else:
            row.hinted_until = now + hint_for
            due[step].append(row.id)
    return dict(due)


def _asks_for(steps: Iterable[Step]) -> ColumnElement[bool]:
    """Rows whose next step is one of these; says the same as `models.lifecycle.next_step`."""
    is_outdated = col(Connection.applied_revision) < col(Connection.revision)
    asked = [
        and_(col(Connection.state).in_(states), is_outdated == outdated)
        for outdated in (False, True)
        if (states := [s for s in State if next_step(s, is_outdated=outdated) in set(steps)])
    ]
    return or_(false(), *asked)
