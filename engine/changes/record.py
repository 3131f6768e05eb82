"""Records what a look for changes brought, with the position it leads to, in one fenced transaction."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.backfill.append import SKEW, Arrival, Target, append, find_known
from engine.backfill.claim import Claim, Held, hold, release
from engine.backfill.outcome import go_on, record_failure, succeed, target_of
from engine.backfill.store import cutoff_of, is_in_doubt, store
from engine.backfill.verdict import Failure
from engine.changes.feed import EventPage, Touch, Verdict, judge_touch
from engine.changes.look import is_sweep
from engine.changes.position import Ask, Position
from engine.changes.rhythm import Rhythm, has_gap, look_rest_s
from engine.health import TroubleCode
from engine.providers.paging import Cursor
from engine.providers.records import Page, UpstreamRecord, is_older
from engine.syncs import is_over, passes_of, progress_of, read_again
from engine.tables import Progress, ReadingKind


def record_changed(
    session: Session, claim: Claim, page: Page, now: datetime, *, asked_at: datetime, rhythm: Rhythm
) -> Claim | None:
    """Store a page of what was updated, or is gone, since a moment; says how to go on."""
    held = hold(session, claim)
    if held is None or _stop_circling(session, claim, held, page.following, now):
        return None
    appended = 0
    if (target := _targets(session, held).get(claim.collection_id)) is not None:
        cutoff = cutoff_of(held.sync.max_age_days, now)
        stored = store(session, target, page.records, asked_at=asked_at, cutoff=cutoff, now=now)
        appended = stored.appended
    times = [record.updated_at or record.created_at for record in page.records]
    newest = max((each for each in times if each), default=None)
    _move(held.progress, newest, page.following, appended, now, asked_at)
    if is_sweep(claim.cursor) and page.following is None:
        held.progress.position = Position.of(held.progress.position).after_sweep().stored()
    succeed(session, claim, held, now)
    return _next(session, claim, held, now, rhythm)


def record_events(
    session: Session,
    claim: Claim,
    page: EventPage,
    now: datetime,
    *,
    asked_at: datetime,
    retention: timedelta,
    rhythm: Rhythm,
) -> Claim | None:
    """Store what a page of events tells; objects it leaves in doubt are noted to be asked for."""
    held = hold(session, claim)
    if held is None or _stop_circling(session, claim, held, page.following, now):
        return None
    if has_gap(held.progress.checked_at or held.progress.created_at, retention, now):
        _read_everything_again(session, held, now)
    targets = _targets(session, held)
    appended, asks = 0, list[Ask]()
    for collection_id in {touch.collection_id for touch in page.touches} & targets.keys():
        touches = [touch for touch in page.touches if touch.collection_id == collection_id]
        count, doubtful = _believe(session, held, targets[collection_id], touches, now)
        appended += count
        asks += doubtful
    _move(held.progress, page.newest, page.following, appended, now, asked_at)
    held.progress.position = Position.of(held.progress.position).asking_also(asks).stored()
    succeed(session, claim, held, now)
    return _next(session, claim, held, now, rhythm)


def record_object(
    session: Session,
    claim: Claim,
    ask: Ask,
    found: UpstreamRecord,
    now: datetime,
    *,
    asked_at: datetime,
    rhythm: Rhythm,
) -> Claim | None:
    """Store an object that was asked for, as it is now, unless a pass has written it meanwhile: ask again."""
    held = hold(session, claim)
    if held is None:
        return None
    appended = 0
    if (target := _targets(session, held).get(ask.collection_id)) is not None:
        known = find_known(session, target, [found.upstream_id])
        cutoff = cutoff_of(held.sync.max_age_days, now)
        if any(is_in_doubt(each, found, asked_at) for each in known.values()):
            return go_on(claim, held, now)
        if known or cutoff is None or not is_older(found, cutoff):
            appended = append(session, target, [Arrival(found, asked_at)], known, now)
    _move(held.progress, None, held.progress.cursor, appended, now, asked_at)
    held.progress.position = Position.of(held.progress.position).without(ask).stored()
    succeed(session, claim, held, now)
    return _next(session, claim, held, now, rhythm)


def give_up_asking(
    session: Session, claim: Claim, ask: Ask, now: datetime, *, rhythm: Rhythm
) -> Claim | None:
    """An object that cannot be read alone: a pass over its collection, due now, will tell, or has told."""
    held = hold(session, claim)
    if held is None:
        return None
    for each in passes_of(session, held.sync.id):
        has_told = is_over(each) and each.started_at and each.started_at > ask.touched_at + SKEW
        if each.collection_id == ask.collection_id and each.due_at is not None and not has_told:
            each.due_at = min(each.due_at, now)
    held.progress.position = Position.of(held.progress.position).without(ask).stored()
    return _next(session, claim, held, now, rhythm)


def _stop_circling(
    session: Session, claim: Claim, held: Held, following: Cursor | None, now: datetime
) -> bool:
    """A provider that repeats itself is asked again later, from where the walk began."""
    position = Position.of(held.progress.position)
    if position.is_circling(claim.cursor, following):
        message = f"{claim.provider} repeats the pages of its changes"
        record_failure(session, claim, Failure(TroubleCode.COLLECTION_FAILED, message), now)
        return True
    held.progress.position = position.walked(claim.cursor, following).stored()
    return False


def _believe(
    session: Session, held: Held, target: Target, touches: Sequence[Touch], now: datetime
) -> tuple[int, list[Ask]]:
    """Append what must be newer than the stream; says how many that were, and what is to be asked for."""
    cutoff = cutoff_of(held.sync.max_age_days, now)
    young = [touch for touch in touches if cutoff is None or not is_older(touch.record, cutoff)]
    known = find_known(session, target, [touch.record.upstream_id for touch in young])
    passed_at = _passed_at(session, held, target.collection_id)
    judged = [(each, judge_touch(each, known.get(each.record.upstream_id), passed_at)) for each in young]
    arrivals = [Arrival(touch.record, touch.at) for touch, verdict in judged if verdict is Verdict.APPEND]
    asks = [
        Ask(target.collection_id, touch.record.upstream_id, touch.at)
        for touch, verdict in judged
        if verdict is Verdict.ASK
    ]
    return append(session, target, arrivals, known, now), asks


def _passed_at(session: Session, held: Held, collection_id: str) -> datetime | None:
    """When the last pass began that would have met what is not known."""
    passes = passes_of(session, held.sync.id)
    return next(
        (each.started_at for each in passes if each.collection_id == collection_id and is_over(each)), None
    )


def _targets(session: Session, held: Held) -> dict[str, Target]:
    """Where the records of each collection go. A pass has still to meet them itself."""
    return {
        each.collection_id: replace(target_of(held, each), pass_id=held.progress.pass_id, is_pass=False)
        for each in passes_of(session, held.sync.id)
    }


def _move(
    progress: Progress,
    newest: datetime | None,
    following: Cursor | None,
    appended: int,
    now: datetime,
    asked_at: datetime,
) -> None:
    progress.cursor = following
    progress.position = Position.of(progress.position).having_seen(newest, asked_at).stored()
    progress.pages_read += 1
    progress.records_read += appended
    if appended:
        progress.changed_at = now


def _next(session: Session, claim: Claim, held: Held, now: datetime, rhythm: Rhythm) -> Claim | None:
    """On to the next page or object; after the last, rest until the next look and leave room to others."""
    progress = held.progress
    position = Position.of(progress.position)
    if position.asks or progress.cursor is not None:
        return go_on(claim, held, now)
    progress.position = position.after_walk().stored()
    progress.checked_at = progress.done_at = now
    progress.changed_at = progress.changed_at or now
    due_at = rhythm.next_look(held.sync.sync_frequency, progress.created_at, progress.changed_at, now)
    readings = progress_of(session, held.sync.id)
    passes = [each for each in readings if each.kind == ReadingKind.PASS]
    rest = look_rest_s(
        claim.rate_limit,
        position.requests,
        len(readings) - len(passes),
        is_backfilling=not all(each.done_at for each in passes),
    )
    release(held, max(due_at, now + timedelta(seconds=rest)))
    return None


def _read_everything_again(session: Session, held: Held, now: datetime) -> None:
    """The feed has forgotten what happened since the last look; from here on it is complete again."""
    read_again(session, held.sync)
    held.progress.checked_at = now
    held.progress.position = Position.starting(now).stored()
