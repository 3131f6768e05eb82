"""Puts records into a compacted stream: only what is new or changed gets a new place, in commit order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlmodel import Session, col

from engine.backfill.claim import Claim
from engine.providers.records import UpstreamRecord
from engine.tables import JsonObject, Record, Stream
from foundation.database import new_id

Columns: TypeAlias = dict[str, UUID | int | str | bool | JsonObject | datetime | None]


@dataclass(frozen=True, slots=True)
class Known:
    """What the stream holds of an upstream object."""

    record_id: UUID
    digest: str
    pass_id: UUID
    deleted: bool

    def equals(self, record: UpstreamRecord) -> bool:
        return self.digest == record.digest and not self.deleted


def append(
    session: Session, claim: Claim, pass_id: UUID, records: Sequence[UpstreamRecord], now: datetime
) -> int:
    """Insert and update; says how many records this pass over the collection had not met before."""
    known = _known(session, claim, [record.upstream_id for record in records])
    new = [record for record in records if record.upstream_id not in known]
    met = [(known[record.upstream_id], record) for record in records if record.upstream_id in known]
    changed = [(before, record) for before, record in met if not before.equals(record)]
    first = _allocate(session, claim.stream_id, len(new) + len(changed))
    _insert(session, claim, pass_id, new, first, now)
    _update(session, pass_id, changed, first + len(new), now)
    unchanged = [before.record_id for before, record in met if before.equals(record)]
    _mark(session, pass_id, unchanged)
    return len(new) + sum(before.pass_id != pass_id for before, _ in met)


def _known(session: Session, claim: Claim, upstream_ids: Sequence[str]) -> dict[str, Known]:
    statement = select(
        col(Record.upstream_id),
        col(Record.id),
        col(Record.digest),
        col(Record.pass_id),
        col(Record.deleted),
    ).where(
        col(Record.sync_id) == claim.sync_id,
        col(Record.collection_id) == claim.collection_id,
        col(Record.upstream_id).in_(upstream_ids),
    )
    rows = session.connection().execute(statement)
    return {row.upstream_id: Known(row.id, row.digest, row.pass_id, row.deleted) for row in rows}


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


def _insert(
    session: Session,
    claim: Claim,
    pass_id: UUID,
    records: Sequence[UpstreamRecord],
    first: int,
    now: datetime,
) -> None:
    if not records:
        return
    owner: Columns = {
        "stream_id": claim.stream_id,
        "sync_id": claim.sync_id,
        "collection_id": claim.collection_id,
        "created_at": now,
    }
    rows: list[Columns] = [
        {
            "id": new_id(),
            "upstream_id": record.upstream_id,
            **owner,
            **_version(record, pass_id, first + offset, now),
        }
        for offset, record in enumerate(records)
    ]
    session.exec(insert(Record), params=rows)


def _update(
    session: Session,
    pass_id: UUID,
    changed: Sequence[tuple[Known, UpstreamRecord]],
    first: int,
    now: datetime,
) -> None:
    if not changed:
        return
    rows: list[Columns] = [
        {"id": before.record_id, **_version(record, pass_id, first + offset, now)}
        for offset, (before, record) in enumerate(changed)
    ]
    session.exec(update(Record), params=rows)


def _mark(session: Session, pass_id: UUID, record_ids: Sequence[UUID]) -> None:
    if record_ids:
        met = update(Record).where(col(Record.id).in_(record_ids)).values(pass_id=pass_id)
        session.exec(met.execution_options(synchronize_session=False))


def _version(record: UpstreamRecord, pass_id: UUID, updated_idx: int, now: datetime) -> Columns:
    return {
        "updated_idx": updated_idx,
        "data": record.data,
        "digest": record.digest,
        "pass_id": pass_id,
        "deleted": False,
        "upstream_created_at": record.created_at,
        "upstream_updated_at": record.updated_at,
        "appended_at": now,
    }
