"""What has changed among an organisation's syncs since a position: pages of an index, without a write.

Triggers note the changes (`engine/migrations/versions/0002_sync_changes.py`). On PostgreSQL the number of a
change is the id of its transaction, and only changes below the oldest running transaction are shown: a
transaction that commits late then cannot leave a change behind a follower's position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ColumnElement, String, Uuid, cast, func, literal, tuple_
from sqlmodel import Session, col, delete, select, text, update
from sqlmodel.sql.expression import Select

from engine.tables import Credential, Organization, Sync, SyncChange, SyncFeed
from engine.tables.sync_change import THE_FEED
from engine.transactions import retrying
from foundation.database import Database

FORGOTTEN_AT_ONCE: Final = 500
Entry: TypeAlias = tuple[SyncChange, Sync | None, Credential | None]
"""A change, and the sync with its credential unless it is deleted."""


class PositionLostError(Exception):
    """Changes after this position are no longer kept, or the position is of another database."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a follower has read: all changes below `change`, and of that those up to `sync_id`, or all."""

    epoch: str
    change: int
    sync_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """One page."""

    entries: Sequence[Entry]
    position: Position
    """Where the next page begins."""
    has_more: bool


@dataclass(frozen=True, slots=True)
class _Feed:
    """What is true of the feed of one organisation at the moment."""

    epoch: str
    forgotten: int
    """Deletions up to this change are no longer kept."""
    latest: int
    """No change has a greater number."""


def changes_after(
    session: Session, org_id: UUID, after: Position | None, limit: int, *, on_sqlite: bool
) -> Changes:
    """Return the next changes in order; raises `PositionLostError`.

    The feed's state is read after the page, so that a deletion forgotten in between is not missed.
    """
    rows = session.exec(_page(org_id, after, limit, on_sqlite=on_sqlite)).all()
    feed = _state(session, org_id, on_sqlite=on_sqlite)
    if after is not None and is_lost(after, feed.epoch, forgotten=feed.forgotten, latest=feed.latest):
        raise PositionLostError
    entries, has_more = rows[:limit], len(rows) > limit
    if not entries:
        return Changes([], after or Position(feed.epoch, feed.forgotten), has_more=False)
    last = entries[-1][0]
    return Changes(entries, Position(feed.epoch, last.change, last.sync_id if has_more else None), has_more)


def is_lost(after: Position, epoch: str, *, forgotten: int, latest: int) -> bool:
    """Say whether a follower at this position may have missed a change."""
    may_miss = after.change < forgotten or (after.change == forgotten and after.sync_id is not None)
    return after.epoch != epoch or after.change > latest or may_miss


def forget_deletions(database: Database, before: datetime) -> None:
    """Forget syncs deleted before this moment; who has not heard of one by then starts again."""
    while retrying(database, lambda session: _forget_some(session, before)) == FORGOTTEN_AT_ONCE:
        pass


def adopt_database(database: Database) -> None:
    """Number all changes anew when the database was copied to, or restored on, another server.

    Transaction ids mean nothing there. Cursors from before are answered 410, so that followers start again.
    """
    if database.is_sqlite:
        return
    with database.read() as session:
        if session.exec(select(SyncFeed.home)).one() == _home(session):
            return
    retrying(database, _adopt)


def restart_followers(database: Database) -> None:
    """Answer 410 to all cursors of before, so that followers start again."""
    retrying(database, lambda session: _begin_epoch(session, on_sqlite=database.is_sqlite))


def _page(
    org_id: UUID, after: Position | None, limit: int, *, on_sqlite: bool
) -> Select[SyncChange, Sync, Credential]:
    statement = (
        select(SyncChange, Sync, Credential)
        .outerjoin(Sync, (col(Sync.id) == SyncChange.sync_id) & col(SyncChange.deleted_at).is_(None))
        .outerjoin(Credential, col(Credential.id) == Sync.credential_id)
        .where(SyncChange.org_id == org_id)
        .order_by(col(SyncChange.change), col(SyncChange.sync_id))
        .limit(limit + 1)
    )
    if not on_sqlite:
        statement = statement.where(col(SyncChange.change) < _oldest_running())
    return statement if after is None else statement.where(_is_after(after))


def _is_after(after: Position) -> ColumnElement[bool]:
    if after.sync_id is None:
        return col(SyncChange.change) > after.change
    position = tuple_(literal(after.change, BigInteger), literal(after.sync_id, Uuid))
    return tuple_(col(SyncChange.change), col(SyncChange.sync_id)) > position


def _state(session: Session, org_id: UUID, *, on_sqlite: bool) -> _Feed:
    latest = col(SyncFeed.last_change) if on_sqlite else _newest()
    statement = (
        select(SyncFeed.epoch, Organization.sync_changes_forgotten, latest)
        .join(SyncFeed, col(SyncFeed.id) == THE_FEED)
        .select_from(Organization)
        .where(Organization.id == org_id)
    )
    return _Feed(*session.exec(statement).one())


def _oldest_running() -> ColumnElement[int]:
    return cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), String), BigInteger)


def _newest() -> ColumnElement[int]:
    return cast(cast(func.pg_snapshot_xmax(func.pg_current_snapshot()), String), BigInteger)


def _forget_some(session: Session, before: datetime) -> int:
    old = select(SyncChange).where(col(SyncChange.deleted_at) < before).limit(FORGOTTEN_AT_ONCE)
    forgotten = session.exec(old).all()
    latest: dict[UUID, int] = {}
    for each in forgotten:
        latest[each.org_id] = max(each.change, latest.get(each.org_id, 0))
    for org_id, change in latest.items():
        is_behind = col(Organization.sync_changes_forgotten) < change
        behind = update(Organization).where(col(Organization.id) == org_id, is_behind)
        session.exec(behind.values(sync_changes_forgotten=change))
    ids = [each.sync_id for each in forgotten]
    session.exec(delete(SyncChange).where(col(SyncChange.sync_id).in_(ids)))
    return len(ids)


def _home(session: Session) -> str:
    """Name the server, its timeline and the database."""
    parts = text(
        "SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), "
        "(SELECT timeline_id FROM pg_control_checkpoint()), oid) "
        "FROM pg_database WHERE datname = current_database()"
    )
    return str(session.connection().scalar(parts))


def _adopt(session: Session) -> None:
    """Begin an epoch, unless another process that has just started did."""
    feed = session.exec(select(SyncFeed).with_for_update()).one()
    if feed.home != _home(session):
        _begin_epoch(session, on_sqlite=False)


def _begin_epoch(session: Session, *, on_sqlite: bool) -> None:
    """Begin a new epoch. On PostgreSQL all changes get the id of this transaction."""
    feed = session.exec(select(SyncFeed).with_for_update()).one()
    feed.epoch = uuid4().hex
    if on_sqlite:
        return
    feed.home = _home(session)
    xid = cast(cast(func.pg_current_xact_id(), String), BigInteger)
    session.exec(update(SyncChange).values(change=xid).execution_options(synchronize_session=False))
    session.exec(update(Organization).values(sync_changes_forgotten=0))
