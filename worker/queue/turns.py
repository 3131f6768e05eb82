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
AHEAD_AT_MOST: Final = 2_000
"""Rows of one tenant that are counted: more of them would only lie further behind everyone else."""


def turn_at(due_at: datetime, ahead: int) -> datetime:
    """The turn of a row with so many due rows of its tenant ahead of it."""
    return due_at + ahead * SPACING


def rows_ahead(
    session: Session, tenant_ids: Iterable[UUID], step: Step, *, now: datetime
) -> Mapping[UUID, int]:
    """For each tenant: how many of its rows are due for this step, counted up to `AHEAD_AT_MOST`."""
    return {tenant_id: _due_rows(session, tenant_id, step, now) for tenant_id in tenant_ids}


def _due_rows(session: Session, tenant_id: UUID, step: Step, now: datetime) -> int:
    due = (
        select(col(Work.due_at))
        .where(col(Work.tenant_id) == tenant_id, col(Work.step) == step, col(Work.due_at) <= now)
        .limit(AHEAD_AT_MOST)
        .subquery()
    )
    return int(session.execute(select(func.count()).select_from(due)).scalar_one())
