"""Claiming: one statement takes the next due rows of a step; of all workers, one gets each row."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import CTE, ColumnElement, Table, Update, bindparam, case, func, select, union_all, update
from sqlmodel import Session

from foundation.database import Database
from models import Connection, Step, Tenant, Work
from worker.errors import TransientError
from worker.policy import RetryPolicy
from worker.queue.verdict import Claim, Key, lane_of

log = structlog.get_logger()

_work: Final[Table] = Work.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
_connection: Final[Table] = Connection.__table__  # type: ignore[attr-defined]
_tenant: Final[Table] = Tenant.__table__  # type: ignore[attr-defined]


class ClaimLostError(TransientError):
    """Another worker holds the row by now and goes on with it."""

    code = "claim_lost"
    advice = "Nothing to do: the worker that holds the connection now goes on with it."


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows that one claim took."""

    claims: Sequence[Claim]
    is_full: bool
    """Whether the limit was reached, so that more may be due."""


def claim(
    session: Session,
    step: Step,
    *,
    limit: int,
    now: datetime,
    lease: timedelta,
    policy: RetryPolicy,
    task_id: str | None = None,
) -> Batch:
    """Take the next due rows of this step, by turn.

    The attempt is counted here, before the work, so that a row whose work kills its worker is parked too.
    For a create the intent is committed here as well, before anything is sent.
    """
    values = {"now": now, "until": now + lease, "size": limit}
    taken = session.execute(_take(step), values).all()
    deadly = [row.connection_id for row in taken if row.lost_leases >= policy.max_attempts]
    if deadly:
        _park(session, step, deadly, now=now, policy=policy)
    claims = _loaded(
        session, step, [row for row in taken if row.connection_id not in set(deadly)], now, task_id
    )
    if step is Step.CREATE:
        _note_intents(session, [c.connection_id for c in claims if c.earlier_create_at is None], now)
    return Batch(claims, is_full=len(taken) == limit)


@dataclass(frozen=True, slots=True)
class Watched:
    """A watched connection as it is now, claimed by nobody or by a worker that reads its sync."""

    claim: Claim
    is_being_read: bool


def watched_by_sync(session: Session, sync_ids: Collection[str], *, now: datetime) -> list[Watched]:
    """The connections of these syncs that are being watched. Nothing is claimed."""
    rows = session.execute(
        _LOAD.add_columns(_work.c.fence, _work.c.attempts, (_work.c.leased_until > now).label("is_leased"))
        .join(_work, _work.c.connection_id == _connection.c.id)
        .where(
            _connection.c.remote_sync_id.in_(sync_ids),
            _work.c.lane == lane_of(Step.POLL),
            _work.c.step == Step.POLL,
        )
    )
    watched = []
    for row in rows:
        *values, fence, attempts, is_leased = row
        claim = Claim(*(*values, Step.POLL, fence, attempts, now))
        watched.append(Watched(claim, bool(is_leased)))
    return watched


def take_over_polls(
    session: Session, ids: Collection[UUID], *, now: datetime, lease: timedelta, task_id: str | None
) -> list[Claim]:
    """Take these connections' polls, also from a worker that is reading them: what we know is newer.

    Reading a sync has no effect at the API, so the reader loses nothing but its stale answer.
    """
    polls = (
        _work.c.lane == lane_of(Step.POLL),
        _work.c.step == Step.POLL,
        _work.c.connection_id.in_(ids),
    )
    _lock_connections(session, ids)
    ordered = select(_work.c.connection_id).where(*polls).order_by(_work.c.connection_id)
    session.execute(ordered.with_for_update()).all()
    taken = session.execute(_leasing(update(_work).where(*polls)), {"until": now + lease}).all()
    return _loaded(session, Step.POLL, taken, now, task_id)


def end_polls(session: Session, ids: Collection[UUID]) -> None:
    """Look at these connections' syncs no more: a feed tells of their changes.

    Rows that others hold are left out: they say themselves when to look next.
    """
    quiet = (
        select(_work.c.connection_id)
        .where(
            _work.c.lane == lane_of(Step.POLL),
            _work.c.step == Step.POLL,
            _work.c.connection_id.in_(ids),
            _work.c.due_at.is_not(None),
            _work.c.leased_until.is_(None),
        )
        .with_for_update(skip_locked=True)
    )
    found = session.scalars(quiet).all() if ids else ()
    if found:
        mine = update(_work).where(_work.c.lane == lane_of(Step.POLL), _work.c.connection_id.in_(found))
        session.execute(mine.values(due_at=None, turn_at=None))


def renew(database: Database, held: Mapping[Key, int], *, lease: timedelta) -> None:
    """Hold on to these rows for another lease; rows taken over by others are left alone."""
    with database.write() as session:
        until = database.now(session) + lease
        rows = [
            {"row_id": row_id, "row_lane": lane, "row_fence": fence, "until": until}
            for (row_id, lane), fence in sorted(held.items())
        ]
        session.connection().execute(_RENEW, rows)


def note_intent(database: Database, claimed: Claim) -> None:
    """Commit that a create is about to be sent again; raise if the row is no longer ours."""
    with database.write() as session:
        _lock_connections(session, [claimed.connection_id])
        now = database.now(session)
        mine = select(_work.c.fence).where(
            _work.c.connection_id == claimed.connection_id,
            _work.c.lane == claimed.lane,
            _work.c.leased_until > now,
        )
        if session.execute(mine.with_for_update()).scalar() != claimed.fence:
            raise ClaimLostError("another worker holds this connection")
        _note_intents(session, [claimed.connection_id], now)


_RENEW: Final = (
    update(_work)
    .where(
        _work.c.connection_id == bindparam("row_id"),
        _work.c.lane == bindparam("row_lane"),
        _work.c.fence == bindparam("row_fence"),
        _work.c.leased_until.is_not(None),
    )
    .values(leased_until=bindparam("until"), due_at=bindparam("until"), turn_at=bindparam("until"))
)


@cache
def _take(step: Step) -> Update:
    """Rows whose turn has come, then the surplus that is due; each part is a range of an index.

    Rows that others have locked are left for the next claim. For a create that holds for the connection as
    well, since the claim changes it: others lock connections before their work, and could wait for us.
    """
    rows = _work if step is not Step.CREATE else _work.join(_connection)
    now = bindparam("now", type_=_work.c.due_at.type)
    size = bindparam("size", type_=_work.c.fence.type)
    next_rows = (
        select(_work.c.connection_id)
        .select_from(rows)
        .where(_work.c.step == step, _work.c.turn_at <= now)
        .order_by(_work.c.turn_at)
        .limit(size)
        .with_for_update(skip_locked=True)
        .cte("next_rows")
    )
    surplus = (
        select(_work.c.connection_id)
        .select_from(rows)
        .where(
            _work.c.step == step,
            _work.c.turn_at > _work.c.due_at,
            _work.c.turn_at > now,
            _work.c.due_at <= now,
        )
        .order_by(_work.c.turn_at)
        .limit(_remaining(next_rows, size))
        .with_for_update(skip_locked=True)
        .cte("surplus")
    )
    chosen = union_all(select(next_rows.c.connection_id), select(surplus.c.connection_id))
    mine = update(_work).where(_work.c.lane == lane_of(step), _work.c.connection_id.in_(chosen))
    died = case((_work.c.leased_until.is_not(None), _work.c.lost_leases + 1), else_=0)
    return _leasing(mine.values(attempts=_work.c.attempts + 1, lost_leases=died))


def _remaining(taken: CTE, size: Any) -> Any:  # SQLAlchemy's expressions have no narrower common type
    return select(size - func.count()).select_from(taken).scalar_subquery()


def _leasing(rows: Update) -> Update:
    """A lease makes the row due again at its end, so that a dead worker's rows need no other care."""
    until = bindparam("until", type_=_work.c.due_at.type)
    leased = rows.values(fence=_work.c.fence + 1, leased_until=until, due_at=until, turn_at=until)
    return leased.returning(_work.c.connection_id, _work.c.fence, _work.c.attempts, _work.c.lost_leases)


def _loaded(
    session: Session, step: Step, taken: Sequence[Any], now: datetime, task_id: str | None
) -> list[Claim]:
    if not taken:
        return []
    held = {row.connection_id: row for row in taken}
    claims = []
    for row in session.execute(_LOAD.where(_connection.c.id.in_(held))):
        mine = held[row[0]]
        claims.append(Claim(*(*row, step, mine.fence, mine.attempts, now, task_id)))
    return claims


_COLUMNS: Final[Mapping[str, ColumnElement[Any]]] = {
    "connection_id": _connection.c.id,
    "external_id": _tenant.c.external_id,
    "tenant_name": _tenant.c.name,
    "plan": _tenant.c.plan,
    "earlier_create_at": _connection.c.create_sent_at,
    "has_given_credential": _connection.c.clock["credential"].as_string().is_not(None),
}
"""Where a claim's fields come from, as far as they are not columns of the connection by the same name."""
_OF_THE_ROW: Final = ("step", "fence", "attempts", "started_at", "task_id", "claimed_s")
_LOAD: Final = select(
    *(
        (_COLUMNS[f.name] if f.name in _COLUMNS else _connection.c[f.name]).label(f.name)
        for f in fields(Claim)
        if f.name not in _OF_THE_ROW
    )
).join_from(_connection, _tenant, _tenant.c.id == _connection.c.tenant_id)


def _lock_connections(session: Session, ids: Collection[UUID]) -> None:
    """Lock in the order that everyone keeps: connections by id, then their work."""
    mine = select(_connection.c.id).where(_connection.c.id.in_(ids)).order_by(_connection.c.id)
    session.execute(mine.with_for_update(key_share=True)).all()


def _note_intents(session: Session, ids: Sequence[UUID], at: datetime) -> None:
    if ids:
        session.execute(update(_connection).where(_connection.c.id.in_(ids)).values(create_sent_at=at))


def _park(session: Session, step: Step, ids: Sequence[UUID], *, now: datetime, policy: RetryPolicy) -> None:
    """Workers keep dying over these rows: try them at the slow pace.

    A row whose connection others have locked keeps its lease and is parked at the end of it: waiting for the
    connection here, while its work is locked, could block both.
    """
    free = (
        select(_connection.c.id)
        .where(_connection.c.id.in_(ids))
        .with_for_update(skip_locked=True, key_share=True)
    )
    parked = session.scalars(free).all()
    later = now + policy.parked_pace
    mine = update(_work).where(_work.c.lane == lane_of(step), _work.c.connection_id.in_(parked))
    session.execute(mine.values(due_at=later, turn_at=later, leased_until=None))
    told = {
        "error_code": "worker_died",
        "error_message": f"{policy.max_attempts} attempts in a row ended because their workers died",
        "error_advice": "Look for crashes or kills in the workers' logs; it is tried again slowly.",
    }
    session.execute(update(_connection).where(_connection.c.id.in_(parked)).values(told))
    log.error("connection.parked", step=step, connections=len(parked), reason="worker_died")
