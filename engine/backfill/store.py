"""Stores a page of a collection: what is young enough, unless somebody wrote it while it was under way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.backfill.append import SKEW, Arrival, Known, Target, append, find_known, mark
from engine.providers.records import UpstreamRecord, is_older


@dataclass(frozen=True, slots=True)
class Stored:
    """What a page brought: records that this pass had not met, ones too old, ones that got a new place."""

    fresh: int
    too_old: int
    appended: int
    in_doubt: Mapping[str, datetime] = field(default_factory=dict)
    """What somebody wrote differently while the page was under way, and as of when."""


def store(
    session: Session,
    target: Target,
    records: Sequence[UpstreamRecord],
    *,
    asked_at: datetime,
    cutoff: datetime | None,
    now: datetime,
) -> Stored:
    """Append what was asked for at a moment."""
    known = find_known(session, target, [record.upstream_id for record in records])
    new = [record for record in records if record.upstream_id not in known and not record.deleted]
    young = [record for record in new if cutoff is None or not is_older(record, cutoff)]
    current = [
        record
        for record in records
        if record.upstream_id in known and not _is_overtaken(known[record.upstream_id], asked_at)
    ]
    arrivals = [Arrival(record, asked_at) for record in (*young, *current)]
    appended = append(session, target, arrivals, known, now)
    overtaken = [each for each in known.values() if _is_overtaken(each, asked_at)]
    mark(session, target, [each.record_id for each in overtaken])
    fresh = len(young) + sum(each.pass_id != target.pass_id for each in known.values())
    in_doubt = {
        record.upstream_id: known[record.upstream_id].as_of
        for record in records
        if record.upstream_id in known and is_in_doubt(known[record.upstream_id], record, asked_at)
    }
    return Stored(fresh, len(new) - len(young), appended, in_doubt)


def cutoff_of(max_age_days: int | None, now: datetime) -> datetime | None:
    """What was last touched before this does not belong in the stream."""
    return now - timedelta(days=max_age_days) if max_age_days else None


def is_in_doubt(known: Known, record: UpstreamRecord, asked_at: datetime) -> bool:
    """Whether two answers that may have crossed differ."""
    return _is_overtaken(known, asked_at) and not known.equals(record)


def _is_overtaken(known: Known, asked_at: datetime) -> bool:
    """Whether it was written after this answer was asked for, and perhaps from a newer one."""
    return known.appended_at > asked_at and known.as_of > asked_at - SKEW
