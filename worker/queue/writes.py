"""Everything that recording a batch writes, collected until it can be written with few statements."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Table, bindparam, insert, update
from sqlmodel import Session

from models import Attempt, Connection, Lane, Move, Step, Work
from worker.queue.history import write_moves
from worker.queue.turns import turn_at
from worker.queue.verdict import Claim

_work: Final[Table] = Work.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
_connection: Final[Table] = Connection.__table__  # type: ignore[attr-defined]
_attempt: Final[Table] = Attempt.__table__  # type: ignore[attr-defined]

Values = dict[str, Any]


class Writes:
    """Rows to be changed and rows to be made. The connections must be locked, or nothing may have changed."""

    def __init__(self) -> None:
        self._connections: defaultdict[frozenset[str], list[Values]] = defaultdict(list)
        self._work: list[tuple[Claim, Values]] = []
        self._to_update: list[Claim] = []
        self._to_look_at: list[UUID] = []
        self.moves: list[Move] = []
        self.attempts: list[Values] = []

    def connection(self, connection_id: UUID, values: Values) -> None:
        """Change these columns of a connection."""
        self._connections[frozenset(values)].append(values | {"row_id": connection_id})

    def work(self, claim: Claim, values: Values) -> None:
        """Change the claimed row of work, if it is still under this claim's fence."""
        self._work.append((claim, values))

    def want_update(self, claim: Claim) -> None:
        """Have this connection's sync brought up to what is wanted."""
        self._to_update.append(claim)

    def look_now(self, claim: Claim) -> None:
        """Have this connection's sync read at once, also where a worker is reading what it was before."""
        self._to_look_at.append(claim.connection_id)

    def write(self, session: Session, *, now: datetime) -> None:
        """Connections first, then work, each in the order of their ids, as everyone locks them."""
        database = session.connection()
        for columns, rows in self._connections.items():
            changed: Values = {name: bindparam(name) for name in columns}
            database.execute(update(_connection).where(_BY_ID).values(changed), rows)
        if self._work:
            database.execute(_FREE, _with_turns(self._work))
        if self._to_look_at:
            looks = [{"row_id": each, "due_at": now, "turn_at": now} for each in sorted(self._to_look_at)]
            database.execute(_LOOK, looks)
        write_moves(session, self.moves)
        if self.attempts:
            database.execute(insert(_attempt), self.attempts)
        for claim in self._to_update:
            _want_update(session, claim, now)


def _with_turns(rows: Sequence[tuple[Claim, Values]]) -> list[Values]:
    """Rows of one tenant that fail together take turns with everyone else's, as new ones do.

    Polls keep their own time: one request reads many of them.
    """
    ahead: Counter[tuple[UUID, Step]] = Counter()
    written = []
    for claim, values in sorted(rows, key=lambda row: row[0].connection_id):
        due_at, step = values["due_at"], values["step"]
        if due_at is not None and step is not Step.POLL and values["leased_until"] is None:
            values = values | {"turn_at": turn_at(due_at, ahead[claim.tenant_id, step])}
            ahead[claim.tenant_id, step] += 1
        key = {"row_id": claim.connection_id, "row_lane": claim.lane, "row_fence": claim.fence}
        written.append(values | key)
    return written


def _want_update(session: Session, claim: Claim, now: datetime) -> None:
    """By the row that there may already be."""
    key = (claim.connection_id, Lane.CHANGES)
    work = session.get(Work, key, with_for_update=True, populate_existing=True)
    if work is None:
        work = Work(
            connection_id=claim.connection_id,
            lane=Lane.CHANGES,
            tenant_id=claim.tenant_id,
            step=Step.UPDATE,
        )
        session.add(work)
    if not work.is_leased(now):
        work.want(Step.UPDATE, due_at=now)
    session.flush()


_BY_ID: Final = _connection.c.id == bindparam("row_id")
_FREE: Final = (
    update(_work)
    .where(
        _work.c.connection_id == bindparam("row_id"),
        _work.c.lane == bindparam("row_lane"),
        _work.c.fence == bindparam("row_fence"),
    )
    .values(
        {
            name: bindparam(name)
            for name in ("step", "due_at", "turn_at", "leased_until", "attempts", "lost_leases")
        }
    )
)
_LOOK: Final = (
    update(_work)
    .where(
        _work.c.connection_id == bindparam("row_id"),
        _work.c.lane == Lane.LIFECYCLE,
        _work.c.step == Step.POLL,
    )
    .values(
        due_at=bindparam("due_at"),
        turn_at=bindparam("turn_at"),
        leased_until=None,
        fence=_work.c.fence + 1,  # a worker that is reading this connection's sync reads in vain
    )
)
