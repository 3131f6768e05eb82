"""Taking a due reading, and giving it back. A lease says how long, a fence says who."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlmodel import Session, col, func, or_, select

from engine.backfill.deaths import note_death
from engine.providers.catalogue import RateLimit
from engine.providers.paging import Cursor
from engine.syncs import HINT_TRUSTED_FOR, begin_pass, is_over
from engine.tables import Credential, JsonObject, Progress, ReadingKind, Sync, SyncStatus
from foundation.database import Database

LEASE: Final = timedelta(seconds=5)
"""How long a killed worker keeps its readings from others: a living one renews it before it ends."""
SILENT_AT_MOST_S: Final = 12.0
"""Longer than a request may take; whoever stores nothing for so long has no lease renewed any more."""
TURN_AWAY: Final = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class Claim:
    """One reading, held by one worker until the lease ends or the fence moves."""

    progress_id: UUID
    fence: int
    sync_id: UUID
    stream_id: UUID
    provider: str
    kind: str
    collection_id: str
    cursor: Cursor | None
    refused: Cursor | None
    """Where the pass could not go on before."""
    is_partial: bool
    """Whether it had to do without the list of some parent."""
    pass_id: UUID
    started_at: datetime
    retiring_after: str | None
    position: JsonObject | None
    has_been_read: bool
    """To the end, at least once."""
    rate_limit: RateLimit
    max_age_days: int | None
    wanted: frozenset[str]
    """The collections that the sync has."""
    credential: Credential = field(repr=False)

    @property
    def fences(self) -> Mapping[UUID, int]:
        """What is held of it: the reading, under its fence."""
        return {self.progress_id: self.fence}

    @property
    def needs_request(self) -> bool:
        """Whether the next step asks the provider, or only compares what has been read."""
        return self.retiring_after is None

    @property
    def is_unhurried(self) -> bool:
        """Whether it only makes sure: a pass over what has been read as a whole before."""
        return self.kind == ReadingKind.PASS and self.has_been_read and self.needs_request


@dataclass(frozen=True, slots=True)
class Held:
    """The rows behind a claim, locked: first the sync, then the reading, the same way everywhere."""

    sync: Sync
    progress: Progress


def is_due(progress: Progress, sync: Sync, now: datetime) -> bool:
    """Whether a reading may be taken now."""
    is_wanted = sync.removed_at is None and sync.status == SyncStatus.ACTIVE
    is_free = progress.leased_until is None or progress.leased_until <= now
    return is_wanted and is_free and progress.due_at is not None and progress.due_at <= now


def claim(session: Session, progress_id: UUID, now: datetime) -> Claim | None:
    """Take a reading if it is due and its sync has a free place."""
    sync_id = session.exec(select(Progress.sync_id).where(Progress.id == progress_id)).first()
    held = _lock(session, sync_id, progress_id) if sync_id is not None else None
    if held is None or not is_due(held.progress, held.sync, now) or held.sync.credential_id is None:
        return None
    if held.progress.leased_until is not None and note_death(session, held.sync, held.progress, now):
        return None
    rate_limit = RateLimit.model_validate(held.sync.rate_limit)
    if not _has_place(session, held.sync, rate_limit, now):
        held.progress.hinted_until = now + TURN_AWAY  # it stays due, and so keeps its place in line
        return None
    held.progress.fence += 1
    held.progress.leased_until = now + LEASE
    held.progress.hinted_until = None
    _begin(held.progress, now)
    return _claim(held, now, rate_limit, session.get_one(Credential, held.sync.credential_id))


def moved(claim: Claim, progress: Progress) -> Claim:
    """The same claim where the reading has got to."""
    return replace(
        claim,
        cursor=progress.cursor,
        refused=progress.refused,
        is_partial=progress.skipped is not None,
        pass_id=progress.pass_id,
        retiring_after=progress.retiring_after,
        position=progress.position,
    )


def hold(session: Session, claim: Claim) -> Held | None:
    """The rows of a claim, unless somebody else has it by now or there is nothing left to read."""
    held = _lock(session, claim.sync_id, claim.progress_id)
    if held is None or held.progress.fence != claim.fence or held.sync.removed_at is not None:
        return None
    return held


def next_in_line(session: Session, held: Held, now: datetime) -> UUID | None:
    """Who of a sync that allows few requests at once has waited longest for this reading to end."""
    if RateLimit.model_validate(held.sync.rate_limit).max_concurrent_requests == 0:
        return None
    others = select(Progress.id).where(
        Progress.sync_id == held.sync.id,
        Progress.id != held.progress.id,
        col(Progress.due_at) <= now,
        or_(col(Progress.leased_until).is_(None), col(Progress.leased_until) <= now),
    )
    return session.exec(others.order_by(col(Progress.due_at)).limit(1)).first()


def renew(database: Database, held: Mapping[UUID, int], until: datetime | None) -> None:
    """Hold on to these readings, by id and fence, or let go; those taken over by others are left alone."""
    with database.write() as session:
        rows = select(Progress).where(col(Progress.id).in_(held))
        for progress in session.exec(rows.with_for_update(skip_locked=True)):
            if progress.fence == held[progress.id] and progress.leased_until is not None:
                progress.leased_until = until


def release(held: Held, due_at: datetime, *, hinted: bool = False) -> None:
    """Give a reading back, due again at a time; `hinted` when its message follows at once."""
    held.progress.leased_until = None
    held.progress.due_at = due_at
    held.progress.hinted_until = due_at + HINT_TRUSTED_FOR if hinted else None


def _begin(progress: Progress, now: datetime) -> None:
    """A pass that was over begins anew."""
    if progress.kind == ReadingKind.PASS and is_over(progress):
        begin_pass(progress)
        progress.started_at = now
    progress.started_at = progress.started_at or now


def _lock(session: Session, sync_id: UUID, progress_id: UUID) -> Held | None:
    lock_sync = select(Sync).where(Sync.id == sync_id).with_for_update(key_share=True)
    sync = session.exec(lock_sync).first()
    lock_progress = select(Progress).where(Progress.id == progress_id).with_for_update(key_share=True)
    progress = session.exec(lock_progress).first()
    return Held(sync, progress) if sync is not None and progress is not None else None


def _has_place(session: Session, sync: Sync, rate_limit: RateLimit, now: datetime) -> bool:
    """Each reading makes one request at a time, so as many may run as requests are allowed at once."""
    if rate_limit.max_concurrent_requests == 0:
        return True
    leased = select(func.count()).where(Progress.sync_id == sync.id, col(Progress.leased_until) > now)
    return session.exec(leased).one() < rate_limit.max_concurrent_requests


def _claim(held: Held, now: datetime, rate_limit: RateLimit, credential: Credential) -> Claim:
    return Claim(
        progress_id=held.progress.id,
        fence=held.progress.fence,
        sync_id=held.sync.id,
        stream_id=held.sync.stream_id,
        provider=held.sync.provider,
        kind=held.progress.kind,
        collection_id=held.progress.collection_id,
        cursor=held.progress.cursor,
        refused=held.progress.refused,
        is_partial=held.progress.skipped is not None,
        pass_id=held.progress.pass_id,
        started_at=held.progress.started_at or now,
        retiring_after=held.progress.retiring_after,
        position=held.progress.position,
        has_been_read=held.progress.done_at is not None,
        rate_limit=rate_limit,
        max_age_days=held.sync.max_age_days,
        wanted=frozenset(held.sync.collection_ids),
        credential=credential,
    )
