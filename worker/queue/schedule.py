"""What the queue looks like as a whole: how much is due, and waking what an outage has parked."""

import random
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, literal, select, union_all
from sqlmodel import Session, col

from models import Connection, Lane, Step, Work
from worker.queue.turns import turn_at

WAKE_AT_ONCE: Final = 1_000


def due_counts(session: Session, *, now: datetime, at_most: int) -> Mapping[Step, int]:
    """How many rows of each step are due, counted up to a limit: the cost does not grow with the table."""
    parts = []
    for step in Step:
        of_step = col(Work.step) == step
        # in the order of an index, or PostgreSQL may read the whole table for a count this small
        turn = (
            select(col(Work.connection_id))
            .where(of_step, col(Work.turn_at) <= now)
            .order_by(col(Work.turn_at))
            .limit(at_most)
        )
        surplus = (
            select(col(Work.connection_id))
            .where(
                of_step,
                col(Work.turn_at) > col(Work.due_at),
                col(Work.turn_at) > now,
                col(Work.due_at) <= now,
            )
            .order_by(col(Work.turn_at))
            .limit(at_most)
        )
        for part in (turn, surplus):
            counted = part.subquery()
            parts.append(
                select(literal(step.value).label("step"), func.count().label("due")).select_from(counted)
            )
    counts = dict.fromkeys(Step, 0)
    for row in session.execute(union_all(*parts)):
        counts[Step(row.step)] += row.due
    return counts


def wake_parked(session: Session, codes: Collection[str], *, now: datetime, min_attempts: int) -> int:
    """Make due what these problems have parked, a bounded number of rows; returns how many.

    The attempts stay as they are: a row that fails again is parked again at once. Rows that another worker
    holds are left out, so that two workers that wake at the same time cannot block each other.
    """
    parked = (
        select(Work)
        .join(Connection, col(Connection.id) == col(Work.connection_id))
        .where(
            col(Connection.error_code).in_(list(codes)),
            col(Work.due_at) > now,
            col(Work.leased_until).is_(None),
            col(Work.attempts) >= min_attempts,
        )
        .limit(WAKE_AT_ONCE)
        .with_for_update(skip_locked=True, of=Work)
    )
    rows = session.scalars(parked).all()
    for row, turn in zip(rows, _fair_turns(rows, now), strict=True):
        row.due_at, row.turn_at = now, turn
    return len(rows)


def _fair_turns(rows: Sequence[Work], now: datetime) -> list[datetime]:
    """Rows of one tenant that become due together take turns with everyone else's."""
    ahead: dict[UUID, int] = {}
    turns = []
    for row in rows:
        turns.append(turn_at(now, ahead.get(row.tenant_id, 0)))
        ahead[row.tenant_id] = ahead.get(row.tenant_id, 0) + 1
    return turns


def want_polls_again(
    session: Session, after: UUID | None, *, now: datetime, within: timedelta
) -> UUID | None:
    """Have syncs read again that only the feed of changes was telling about, a bounded number of them.

    They become due at random moments `within` the time to come. Returns the last one's id, to go on after it.
    """
    silent = select(Work).where(
        col(Work.lane) == Lane.LIFECYCLE, col(Work.step) == Step.POLL, col(Work.due_at).is_(None)
    )
    if after is not None:
        silent = silent.where(col(Work.connection_id) > after)
    ordered = silent.order_by(col(Work.connection_id)).limit(WAKE_AT_ONCE)
    rows = session.scalars(ordered.with_for_update()).all()  # waits for locked ones: none may be missed
    for row in rows:
        row.due_at = row.turn_at = now + within * random.random()  # noqa: S311  # no secret
    return rows[-1].connection_id if rows else None
