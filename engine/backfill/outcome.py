"""Records what a request brought: a page with its cursor, or a failure; each in one fenced transaction."""

import random
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select, update

from engine.backfill.append import Target
from engine.backfill.claim import LEASE, Claim, Held, hold, moved, release
from engine.backfill.store import Stored, cutoff_of, store
from engine.backfill.verdict import Failure, wait_s
from engine.changes.doubt import have_asked
from engine.health import HealthStatus, Trouble, TroubleCode, since
from engine.providers.catalogue import Provider
from engine.providers.records import Page, ends_at
from engine.syncs import begin_pass, settle
from engine.tables import ALL_COLLECTIONS, Credential, Progress, ReadingKind, SyncStatus

DRAW: Final = random.SystemRandom()


def record_page(
    session: Session, claim: Claim, page: Page, now: datetime, *, asked_at: datetime, provider: Provider
) -> Claim | None:
    """Store records and cursor together, so that a crash repeats this page at most; says how to go on."""
    held = hold(session, claim)
    if held is None:
        return None
    progress, cutoff = held.progress, cutoff_of(held.sync.max_age_days, now)
    stored = store(
        session, target_of(held, progress), page.records, asked_at=asked_at, cutoff=cutoff, now=now
    )
    have_asked(session, held.sync, provider, claim.collection_id, stored.in_doubt, now)
    _count(progress, page, stored)
    if page.refusal is not None:
        _note_skipped(held, claim, Failure(TroubleCode.COLLECTION_FAILED, page.refusal), now)
    if page.following is None and progress.skipped is not None and progress.records_read == 0:
        _end_empty_handed(session, claim, held, now)
        return None
    if is_looping(progress):
        _stop_looping(session, claim, held, now)
        return None
    if page.following is None or (cutoff is not None and ends_at(page, cutoff)):
        progress.cursor, progress.retiring_after = None, ""
    succeed(session, claim, held, now)
    return go_on(claim, held, now)


def succeed(session: Session, claim: Claim, held: Held, now: datetime) -> None:
    """An answer ends the trouble of a reading, unless it lacks something, and perhaps of its sync."""
    had_trouble = held.progress.trouble != held.progress.skipped
    held.progress.trouble, held.progress.failures, held.progress.deaths = held.progress.skipped, 0, 0
    if had_trouble or claim.credential.rejected_at is not None:
        _clear_credential(session, claim)
    if had_trouble or held.sync.health_status != HealthStatus.HEALTHY:
        settle(session, held.sync, now)


def go_on(claim: Claim, held: Held, now: datetime) -> Claim | None:
    """Hold the reading for longer, unless the sync has been disabled meanwhile."""
    if held.sync.status != SyncStatus.ACTIVE:
        release(held, now)
        return None
    held.progress.leased_until = now + LEASE
    return moved(claim, held.progress)


def record_failure(session: Session, claim: Claim, failure: Failure, now: datetime) -> None:
    """Note the trouble and when to try again."""
    held = hold(session, claim)
    if held is None:
        return
    held.progress.deaths = 0
    if failure.code is TroubleCode.CREDENTIAL_REJECTED and not _reject_credential(session, claim, now):
        release(held, now)
    elif failure.code is not TroubleCode.COLLECTION_FAILED or held.progress.cursor is None:
        _note(session, claim, held, failure, now)
    elif claim.kind == ReadingKind.PASS and held.progress.refused != held.progress.cursor:
        _begin_again(held, now)
    elif claim.kind == ReadingKind.PASS:  # all pages before this one have led here again
        _note(session, claim, held, failure, now)
    else:  # nothing would keep a look from turning in circles
        held.progress.cursor = None
        _note(session, claim, held, failure, now)


def target_of(held: Held, progress: Progress) -> Target:
    """Where the records of a pass over a collection go."""
    return Target(held.sync.stream_id, held.sync.id, progress.collection_id, progress.pass_id, is_pass=True)


def is_looping(progress: Progress) -> bool:
    """Whether the provider turns in circles: more stale pages in a row than all pages before them.

    A cursor whose record was deleted may lead back to the first page. Walking over the known pages
    again finds the way on, and takes no more of them than were read before.
    """
    return progress.stale_pages > progress.pages_read - progress.stale_pages


def _note(session: Session, claim: Claim, held: Held, failure: Failure, now: datetime) -> None:
    progress = held.progress
    earlier = Trouble.model_validate(progress.trouble) if progress.trouble else None
    about = None if claim.collection_id == ALL_COLLECTIONS else claim.collection_id
    progress.trouble = since(failure.trouble(now, about), earlier).model_dump(mode="json")
    progress.failures += 1
    until = now + timedelta(seconds=wait_s(failure, progress.failures, DRAW))
    release(held, until)
    if failure.code is TroubleCode.RATE_LIMITED:
        hold_back_others(session, claim, until)
    settle(session, held.sync, now)


def _begin_again(held: Held, now: datetime) -> None:
    """The record that the cursor names may be gone: walk from the first page, over what is known."""
    held.progress.refused, held.progress.cursor = held.progress.cursor, None
    release(held, now)


def _note_skipped(held: Held, claim: Claim, failure: Failure, now: datetime) -> None:
    """One parent's list could not be read: the pass goes on, and the health tells."""
    earlier = Trouble.model_validate(held.progress.trouble) if held.progress.trouble else None
    trouble = since(failure.trouble(now, claim.collection_id), earlier)
    held.progress.skipped = trouble.model_dump(mode="json")


def _end_empty_handed(session: Session, claim: Claim, held: Held, now: datetime) -> None:
    """No parent's list could be read: that is a refusal of the collection, whose pass begins anew later."""
    message = Trouble.model_validate(held.progress.skipped).message
    begin_pass(held.progress)
    _note(session, claim, held, Failure(TroubleCode.COLLECTION_FAILED, message), now)


def _count(progress: Progress, page: Page, stored: Stored) -> None:
    has_moved = stored.fresh > 0 or stored.too_old > 0
    is_stale = page.following is not None and (not has_moved or page.following == progress.cursor)
    if has_moved or not page.is_onward:
        progress.stale_pages = progress.stale_pages + 1 if is_stale else 0
        progress.pages_read += 1
    progress.pages_read = max(progress.pages_read, 1)
    progress.records_read += stored.fresh
    progress.cursor = page.following


def _stop_looping(session: Session, claim: Claim, held: Held, now: datetime) -> None:
    message = f"{claim.provider} repeats the pages of {claim.collection_id}"
    begin_pass(held.progress)
    _note(session, claim, held, Failure(TroubleCode.COLLECTION_FAILED, message), now)


def hold_back_others(session: Session, claim: Claim, until: datetime) -> None:
    """The provider asked the account to slow down, not just one collection."""
    others = update(Progress).where(col(Progress.sync_id) == claim.sync_id, col(Progress.due_at) < until)
    session.exec(others.values(due_at=until).execution_options(synchronize_session=False))


def _reject_credential(session: Session, claim: Claim, now: datetime) -> bool:
    """Mark the credential as rejected, unless other secrets have been imported since."""
    locked = select(Credential).where(Credential.id == claim.credential.id).with_for_update(key_share=True)
    credential = session.exec(locked).one()
    if credential.fingerprint != claim.credential.fingerprint:
        return False
    credential.rejected_at = credential.rejected_at or now
    return True


def _clear_credential(session: Session, claim: Claim) -> None:
    rejected = update(Credential).where(
        col(Credential.id) == claim.credential.id, col(Credential.rejected_at).is_not(None)
    )
    session.exec(rejected.values(rejected_at=None).execution_options(synchronize_session=False))
