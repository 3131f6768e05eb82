"""Applying a tenant's own changes to its many connections, a bounded number at a time, in the background."""

from typing import Final

from sqlalchemy import exists, func
from sqlmodel import Session, col, select

from models import Connection, Move, Tenant
from worker.queue.desired import apply_desired
from worker.queue.history import write_moves
from worker.queue.want import want_work
from worker.runtime import Runtime
from worker.steps.report import Report

CONNECTIONS_PER_STEP: Final = 200


def is_spreading(session: Session) -> bool:
    """Whether any tenant's change is still to be applied to some of its connections."""
    return session.exec(select(exists().where(col(Tenant.spread_after).is_not(None)))).one()


def spread(runtime: Runtime, task_id: str | None = None) -> Report:
    """Apply one tenant's changes to its next connections. Chance chooses among the tenants.

    So a tenant that changes again and again keeps nobody waiting.
    """
    report = Report()
    with runtime.database.write() as session:
        waiting = select(Tenant).where(col(Tenant.spread_after).is_not(None)).order_by(func.random()).limit(1)
        tenant = session.exec(waiting.with_for_update(skip_locked=True, key_share=True)).first()
        if tenant is None:
            return report
        mine = select(Connection).where(
            col(Connection.tenant_id) == tenant.id, col(Connection.id) > tenant.spread_after
        )
        ordered = mine.order_by(col(Connection.id)).limit(CONNECTIONS_PER_STEP)
        connections = session.exec(ordered.with_for_update(key_share=True)).all()
        moves: list[Move] = []
        for connection in connections:
            connection.revision += 1
            moves += apply_desired(tenant, connection, task_id=task_id)
        session.flush()
        write_moves(session, moves)
        want_work(session, connections, now=runtime.database.now(session))
        is_last = len(connections) < CONNECTIONS_PER_STEP
        tenant.spread_after = None if is_last else connections[-1].id
        report.did["connection brought up to date"] += len(connections)
        report.is_full = True  # this tenant's next ones, or another tenant's
    return report
