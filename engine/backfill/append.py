"""Puts records into a compacted stream: only what is new or changed gets a new place, in commit order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlmodel import Session, col

from engine.providers.records import UpstreamRecord
from engine.tables import JsonObject, Record, Stream
from foundation.database import new_id

SKEW: Final = timedelta(seconds=2)
"""The provider's clock and ours may differ by as much."""
Columns: TypeAlias = dict[str, UUID | int | str | bool | JsonObject | datetime | None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the records of one collection go, and who brings them."""

    stream_id: UUID
    sync_id: UUID
    collection_id: str
    pass_id: UUID
    is_pass: bool
    """Whether what is brought counts as met by a pass over the collection."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An object, and when upstream is known to have looked like that."""

    record: UpstreamRecord
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What the stream holds of an upstream object."""

    record_id: UUID
    digest: str
    pass_id: UUID
    deleted: bool
    as_of: datetime
    appended_at: datetime

    def equals(self, record: UpstreamRecord) -> bool:
        if self.deleted or record.deleted:
            return self.deleted and record.deleted
        return self.digest == record.digest


def find_known(session: Session, target: Target, upstream_ids: Iterable[str]) -> dict[str, Known]:
    """What the stream holds of these objects."""
    statement = select(
        col(Record.upstream_id),
        col(Record.id),
        col(Record.digest),
        col(Record.pass_id),
        col(Record.deleted),
        col(Record.as_of),
        col(Record.appended_at),
    ).where(
        col(Record.sync_id) == target.sync_id,
        col(Record.collection_id) == target.collection_id,
        col(Record.upstream_id).in_(list(upstream_ids)),
    )
    return {row[0]: Known(*row[1:]) for row in session.connection().execute(statement)}


def append(
    session: Session, target: Target, arrivals: Sequence[Arrival], known: Mapping[str, Known], now: datetime
) -> int:
    """Insert, update, and note what is as it was; says how many got a new place."""
    new = [each for each in arrivals if each.record.upstream_id not in known]
    met = [(known[each.record.upstream_id], each) for each in arrivals if each.record.upstream_id in known]
    changed = [(before, each) for before, each in met if not before.equals(each.record)]
    first = _allocate(session, target.stream_id, len(new) + len(changed))
    _insert(session, target, new, first, now)
    _update(session, target, changed, first + len(new), now)
    unchanged = [(before, each) for before, each in met if before.equals(each.record)]
    for as_of, group in groupby(unchanged, key=lambda pair: max(pair[0].as_of, pair[1].as_of)):
        mark(session, target, [before.record_id for before, _ in group], as_of)
    return len(new) + len(changed)


def mark(session: Session, target: Target, record_ids: Sequence[UUID], as_of: datetime | None = None) -> None:
    """Note that a pass has met these records, and as of when they are unchanged."""
    values: Columns = {"pass_id": target.pass_id} if target.is_pass else {}
    if as_of is not None:
        values["as_of"] = as_of
    if record_ids and values:
        met = update(Record).where(col(Record.id).in_(record_ids)).values(**values)
        session.exec(met.execution_options(synchronize_session=False))


def _allocate(session: Session, stream_id: UUID, count: int) -> int:
    """The first of so many fresh indices. The stream's row stays locked until the commit, so that a reader
    who has seen an index will never see a smaller one appear."""
    if count == 0:
        return 0
    statement = (
        update(Stream)
        .where(col(Stream.id) == stream_id)
        .values(last_idx=Stream.last_idx + count)
        .returning(col(Stream.last_idx))
        .execution_options(synchronize_session=False)
    )
    last: int = session.exec(statement).scalar_one()
    return last - count + 1


def _insert(session: Session, target: Target, arrivals: Sequence[Arrival], first: int, now: datetime) -> None:
    if not arrivals:
        return
    owner: Columns = {
        "stream_id": target.stream_id,
        "sync_id": target.sync_id,
        "collection_id": target.collection_id,
        "created_at": now,
    }
    rows: list[Columns] = [
        {
            "id": new_id(),
            "upstream_id": arrival.record.upstream_id,
            **owner,
            "pass_id": target.pass_id,
            **_place(arrival, first + offset, now),
            **_content(arrival.record),
        }
        for offset, arrival in enumerate(arrivals)
    ]
    session.connection().execute(insert(Record), rows)  # not by the ORM, which would prepare every row


def _update(
    session: Session,
    target: Target,
    changed: Sequence[tuple[Known, Arrival]],
    first: int,
    now: datetime,
) -> None:
    """A deleted record keeps what was last known of it; there may be nothing else to keep."""
    alive, deleted = list[Columns](), list[Columns]()
    met: Columns = {"pass_id": target.pass_id} if target.is_pass else {}
    for offset, (before, arrival) in enumerate(changed):
        place: Columns = {"id": before.record_id, **met, **_place(arrival, first + offset, now)}
        if arrival.record.deleted:
            deleted.append(place)
        else:
            alive.append({**place, **_content(arrival.record)})
    for rows in filter(None, (alive, deleted)):
        session.exec(update(Record), params=rows)


def _place(arrival: Arrival, updated_idx: int, now: datetime) -> Columns:
    return {
        "updated_idx": updated_idx,
        "deleted": arrival.record.deleted,
        "as_of": arrival.as_of,
        "appended_at": now,
    }


def _content(record: UpstreamRecord) -> Columns:
    return {
        "data": record.data,
        "digest": record.digest,
        "upstream_created_at": record.created_at,
        "upstream_updated_at": record.updated_at,
    }
