"""Fair turns: the first rows of every tenant come before any tenant's surplus.

Rows of one tenant that are due together get turns that lie `SPACING` apart. A claim takes rows by turn, so a
tenant with thousands of due rows keeps one row per `SPACING` in the queue of all, and its other rows use the
capacity that nobody else needs.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlmodel import Session, col

from models import Step, Work

SPACING: Final = timedelta(milliseconds=250)


def turn_at(due_at: datetime, ahead: int) -> datetime:
    """The turn of a row with so many due rows of its tenant ahead of it."""
    return due_at + ahead * SPACING


def rows_ahead(
    session: Session, tenant_ids: Iterable[UUID], step: Step, *, now: datetime
) -> Mapping[UUID, int]:
    """For each tenant that has any: how many of its rows are due for this step."""
    counted = (
        select(col(Work.tenant_id), func.count().label("due"))
        .where(col(Work.tenant_id).in_(list(tenant_ids)), col(Work.step) == step, col(Work.due_at) <= now)
        .group_by(col(Work.tenant_id))
    )
    return {row.tenant_id: row.due for row in session.execute(counted)}
