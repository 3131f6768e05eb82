"""Asking for work: after an event has changed a connection, its work rows say what is to be done next."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Table, insert, select
from sqlmodel import Session, col

from models import Connection, Lane, Step, Work
from worker.queue.desired import wanted_steps
from worker.queue.turns import rows_ahead, turn_at
from worker.queue.verdict import Key

_work: Final[Table] = Work.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it


def want_work(
    session: Session,
    connections: Sequence[Connection],
    *,
    new: Collection[UUID] = (),
    new_tenants: Collection[UUID] = (),
    now: datetime,
) -> set[Step]:
    """Make these connections' next steps due; returns the steps for which workers should be woken.

    The connections are locked, or just made and named in `new`. Tenants just made have no other rows that
    could come before. A step under way that changes something at the API keeps its lease,
    and its end starts the next step. A poll only looks: its lease is taken away.
    """
    queue = _Queue(_existing(session, [c.id for c in connections if c.id not in new]), now)
    wanted = [each for connection in connections for each in queue.wanted(connection)]
    _make_due(session, wanted, _turns(session, wanted, new_tenants, now), now)
    return {each.step for each in wanted}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A step that is due now, and its row of work if there is one yet."""

    connection_id: UUID
    tenant_id: UUID
    lane: Lane
    step: Step
    row: Work | None


@dataclass
class _Queue:
    """The rows of work of some connections."""

    rows: dict[Key, Work]
    now: datetime

    def wanted(self, connection: Connection) -> list[_Wanted]:
        """The steps that are due now because of what the connection wants."""
        step, update_step = wanted_steps(connection)
        wanted = []
        lifecycle = self.rows.get((connection.id, Lane.LIFECYCLE))
        if step is None and lifecycle is not None and not lifecycle.is_leased(self.now):
            lifecycle.want(None, due_at=self.now)
        elif step is not None and self._is_news(lifecycle, step):
            wanted.append(self._wanted(connection, Lane.LIFECYCLE, step))
        elif step is not None and lifecycle is not None:
            lifecycle.step = step  # what the end of the lease starts if its worker dies
        if update_step is not None:
            changes = self.rows.get((connection.id, Lane.CHANGES))
            if changes is None or not changes.is_leased(self.now):
                wanted.append(self._wanted(connection, Lane.CHANGES, update_step))
        return wanted

    def _wanted(self, connection: Connection, lane: Lane, step: Step) -> _Wanted:
        row = self.rows.get((connection.id, lane))
        return _Wanted(connection.id, connection.tenant_id, lane, step, row)

    def _is_news(self, work: Work | None, step: Step) -> bool:
        """A poll goes on at its own pace; any other step is wanted at once, unless one is under way."""
        if work is None:
            return True
        if work.step is step is Step.POLL:
            return False
        return work.step is Step.POLL or not work.is_leased(self.now)


def _existing(session: Session, ids: Sequence[UUID]) -> dict[Key, Work]:
    """Locked in the order in which everyone locks rows of work."""
    if not ids:
        return {}
    rows = (
        select(Work).where(col(Work.connection_id).in_(ids)).order_by(col(Work.connection_id), col(Work.lane))
    )
    return {(row.connection_id, row.lane): row for row in session.scalars(rows.with_for_update())}


def _turns(
    session: Session, wanted: Sequence[_Wanted], new_tenants: Collection[UUID], now: datetime
) -> list[datetime]:
    """The rows of one tenant one after the other, behind those of the tenant that wait already."""
    ahead: Counter[tuple[UUID, Step]] = Counter()
    waiting = {(each.tenant_id, each.step) for each in wanted if each.tenant_id not in new_tenants}
    for step in {step for _, step in waiting}:
        tenants = {tenant_id for tenant_id, of in waiting if of is step}
        for tenant_id, count in rows_ahead(session, tenants, step, now=now).items():
            ahead[tenant_id, step] = count
    turns = []
    for each in wanted:
        turns.append(turn_at(now, ahead[each.tenant_id, each.step]))
        ahead[each.tenant_id, each.step] += 1
    return turns


def _make_due(session: Session, wanted: Sequence[_Wanted], turns: Sequence[datetime], now: datetime) -> None:
    """Change the rows that there are; write the new ones with one statement."""
    new = []
    for each, turn in zip(wanted, turns, strict=True):
        if each.row is None:
            new.append(_new_row(each, turn, now))
            continue
        each.row.want(each.step, due_at=now, turn_at=turn)
        each.row.leased_until = None
        each.row.fence += 1  # a worker that is reading this connection's sync reads in vain
    if new:
        session.connection().execute(insert(_work), new)


def _new_row(wanted: _Wanted, turn: datetime, now: datetime) -> dict[str, object]:
    return {
        "connection_id": wanted.connection_id,
        "lane": wanted.lane,
        "tenant_id": wanted.tenant_id,
        "step": wanted.step,
        "due_at": now,
        "turn_at": turn,
        "fence": 0,
        "attempts": 0,
        "lost_leases": 0,
    }
