"""Ends a pass: what the stream holds and the pass did not meet is gone upstream.

Where pages are numbered, a record may be on none of them although it is there. What such a pass did not meet
is marked instead, the next pass follows at once, and what that one does not meet either is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import Session, col, select

from engine.backfill.append import SKEW, Arrival, Target, append, find_known, mark
from engine.backfill.claim import Claim, hold
from engine.backfill.outcome import go_on, target_of
from engine.backfill.store import cutoff_of
from engine.changes.doubt import have_asked
from engine.changes.rhythm import Rhythm
from engine.providers.catalogue import Provider
from engine.providers.records import gone
from engine.syncs import finish_pass, watch
from engine.tables import Record
from foundation.database import Database

COMPARED_AT_ONCE: Final = 2_000
MISSED: Final = UUID(int=0)
"""In place of the pass that met a record last: the one before did not."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """Some of a collection's records, in order: those not met, and where to go on, if there are more."""

    upstream_ids: Sequence[str]
    following: str | None


def find_unmet(database: Database, claim: Claim, provider: Provider, now: datetime) -> Unmet:
    """Compare some records with the pass; where it ends at `max_age_days`, what lies beyond was not met."""
    cutoff = cutoff_of(claim.max_age_days, now) if provider.get(claim.collection_id).ages else None
    statement = (
        select(Record.upstream_id, Record.pass_id, Record.as_of, Record.upstream_created_at)
        .where(
            Record.sync_id == claim.sync_id,
            Record.collection_id == claim.collection_id,
            Record.upstream_id > (claim.retiring_after or ""),
            col(Record.deleted).is_(False),
        )
        .order_by(col(Record.upstream_id))
        .limit(COMPARED_AT_ONCE)
    )
    with database.read() as session:
        rows = session.exec(statement).all()
    unmet = [
        upstream_id
        for upstream_id, pass_id, as_of, created_at in rows
        if may_be_unmet(claim, pass_id, as_of) and not (cutoff and created_at and created_at < cutoff)
    ]
    return Unmet(unmet, rows[-1][0] if len(rows) == COMPARED_AT_ONCE else None)


def retire(
    session: Session,
    claim: Claim,
    unmet: Unmet,
    now: datetime,
    *,
    rhythm: Rhythm,
    provider: Provider,
) -> Claim | None:
    """Re-append what is gone as deleted; after the last of it, the pass is over."""
    held = hold(session, claim)
    if held is None:
        return None
    target, look_twice = target_of(held, held.progress), provider.shifts(claim.collection_id)
    alive = {
        upstream_id: each
        for upstream_id, each in find_known(session, target, unmet.upstream_ids).items()
        if not each.deleted and may_be_unmet(claim, each.pass_id, each.as_of)
    }
    known = {name: each for name, each in alive.items() if is_unmet(claim, each.pass_id, each.as_of)}
    in_doubt = {name: each.as_of for name, each in alive.items() if name not in known}
    have_asked(session, held.sync, provider, claim.collection_id, in_doubt, now)
    missing = [
        Arrival(gone(upstream_id), claim.started_at)
        for upstream_id, each in known.items()
        if each.pass_id == MISSED or not look_twice
    ]
    append(session, target, missing, known, now)
    if look_twice:
        once = [each.record_id for each in known.values() if each.pass_id != MISSED]
        mark(session, replace(target, pass_id=MISSED), once)
    if unmet.following is None:
        is_in_doubt = look_twice and _is_any_missed(session, target)
        is_watched = provider.changes_of(claim.collection_id) is not None
        watch(session, held.sync, provider, claim.collection_id, claim.started_at)
        finish_pass(session, held.sync, held.progress, now, rhythm=rhythm, is_watched=is_watched)
        if is_in_doubt:
            held.progress.due_at = now
        return None
    held.progress.retiring_after = unmet.following
    return go_on(claim, held, now)


def _is_any_missed(session: Session, target: Target) -> bool:
    statement = select(Record.id).where(
        Record.sync_id == target.sync_id,
        Record.collection_id == target.collection_id,
        Record.pass_id == MISSED,
        col(Record.deleted).is_(False),
    )
    return session.exec(statement.limit(1)).first() is not None


def is_unmet(claim: Claim, pass_id: UUID, as_of: datetime) -> bool:
    """Whether a pass has not met a record, and nobody else saw it since the pass began."""
    return pass_id != claim.pass_id and as_of < claim.started_at - SKEW


def may_be_unmet(claim: Claim, pass_id: UUID, as_of: datetime) -> bool:
    """The same, or perhaps it was seen just before the pass began."""
    return pass_id != claim.pass_id and as_of < claim.started_at + SKEW
