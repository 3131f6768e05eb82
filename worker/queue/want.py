"""Asking for work: after an event has changed a connection, its work rows say what is to be done next."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col

from models import Connection, Lane, Step, Work
from worker.queue.desired import wanted_steps
from worker.queue.turns import rows_ahead, turn_at
from worker.queue.verdict import Key


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
    queue = _Queue(session, _existing(session, [c.id for c in connections if c.id not in new]), now)
    wanted = [work for connection in connections for work in queue.wanted(connection)]
    _take_turns(session, wanted, new_tenants, now)
    return {work.step for work in wanted}


@dataclass
class _Queue:
    """The work rows of some connections, with those that are made for them."""

    session: Session
    rows: dict[Key, Work]
    now: datetime

    def wanted(self, connection: Connection) -> list[Work]:
        """The rows that are due now because of what the connection wants."""
        step, update_step = wanted_steps(connection)
        wanted = []
        lifecycle = self.rows.get((connection.id, Lane.LIFECYCLE))
        if step is None and lifecycle is not None and not lifecycle.is_leased(self.now):
            lifecycle.want(None, due_at=self.now)
        elif step is not None and self._is_news(lifecycle, step):
            wanted.append(self._row(connection, Lane.LIFECYCLE, step))
        elif step is not None and lifecycle is not None:
            lifecycle.step = step  # what the end of the lease starts if its worker dies
        if update_step is not None:
            changes = self.rows.get((connection.id, Lane.CHANGES))
            if changes is None or not changes.is_leased(self.now):
                wanted.append(self._row(connection, Lane.CHANGES, update_step))
        return wanted

    def _is_news(self, work: Work | None, step: Step) -> bool:
        """A poll goes on at its own pace; any other step is wanted at once, unless one is under way."""
        if work is None:
            return True
        if work.step is step is Step.POLL:
            return False
        return work.step is Step.POLL or not work.is_leased(self.now)

    def _row(self, connection: Connection, lane: Lane, step: Step) -> Work:
        work = self.rows.get((connection.id, lane))
        if work is None:
            work = Work(connection_id=connection.id, lane=lane, tenant_id=connection.tenant_id, step=step)
            self.rows[connection.id, lane] = work
            self.session.add(work)
        work.step = step
        work.attempts = 0
        work.leased_until = None
        work.fence += 1  # whoever is reading this connection's sync reads in vain
        return work


def _existing(session: Session, ids: Sequence[UUID]) -> dict[Key, Work]:
    """Locked in the order in which everyone locks rows of work."""
    if not ids:
        return {}
    rows = (
        select(Work).where(col(Work.connection_id).in_(ids)).order_by(col(Work.connection_id), col(Work.lane))
    )
    return {(row.connection_id, row.lane): row for row in session.scalars(rows.with_for_update())}


def _take_turns(
    session: Session, wanted: Sequence[Work], new_tenants: Collection[UUID], now: datetime
) -> None:
    """Due now; rows of one tenant one after the other, behind those that wait already."""
    ahead: Counter[tuple[UUID, Step]] = Counter()
    waiting = {(work.tenant_id, work.step) for work in wanted if work.tenant_id not in new_tenants}
    for step in {step for _, step in waiting}:
        tenants = {tenant_id for tenant_id, of in waiting if of is step}
        for tenant_id, count in rows_ahead(session, tenants, step, now=now).items():
            ahead[tenant_id, step] = count
    for work in wanted:
        work.due_at = now
        work.turn_at = turn_at(now, ahead[work.tenant_id, work.step])
        ahead[work.tenant_id, work.step] += 1
