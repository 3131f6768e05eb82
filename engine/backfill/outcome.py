"""Records what a request brought: a page with its cursor, or a failure; each in one fenced transaction."""

import random
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select, update

from engine.backfill.append import append
from engine.backfill.claim import LEASE, Claim, Held, hold, release
from engine.backfill.verdict import Failure, wait_s
from engine.health import HealthStatus, Trouble, TroubleCode, since
from engine.providers.records import Page, ends_at, is_older
from engine.syncs import begin_pass, settle
from engine.tables import Credential, Progress, SyncStatus

DRAW: Final = random.SystemRandom()


def record_page(session: Session, claim: Claim, page: Page, now: datetime) -> bool:
    """Store records and cursor together, so that a crash repeats this page at most; says whether to go on."""
    held = hold(session, claim)
    if held is None:
        return False
    progress, had_trouble = held.progress, held.progress.trouble is not None
    is_last = _store(session, claim, held, page, now)
    if is_looping(progress):
        _stop_looping(session, claim, held, now)
        return False
    progress.trouble, progress.failures = None, 0
    progress.leased_until = now + LEASE
    if is_last:
        progress.done_at, progress.due_at, progress.leased_until = now, None, None
    if is_last or had_trouble or held.sync.health_status != HealthStatus.HEALTHY:
        _clear_credential(session, claim)
        settle(session, held.sync, now)
    if not is_last and held.sync.status != SyncStatus.ACTIVE:
        release(held, now)
        return False
    return not is_last


def record_failure(session: Session, claim: Claim, failure: Failure, now: datetime) -> None:
    """Note the trouble and when to try again."""
    held = hold(session, claim)
    if held is None:
        return
    if failure.code is TroubleCode.CREDENTIAL_REJECTED and not _reject_credential(session, claim, now):
        release(held, now)
    elif failure.code is TroubleCode.COLLECTION_FAILED and held.progress.cursor is not None:
        _begin_again(held, now)
    else:
        _note(session, claim, held, failure, now)


def _note(session: Session, claim: Claim, held: Held, failure: Failure, now: datetime) -> None:
    progress = held.progress
    earlier = Trouble.model_validate(progress.trouble) if progress.trouble else None
    progress.trouble = since(failure.trouble(now, claim.collection_id), earlier).model_dump(mode="json")
    progress.failures += 1
    until = now + timedelta(seconds=wait_s(failure, progress.failures, DRAW))
    release(held, until)
    if failure.code is TroubleCode.RATE_LIMITED:
        _hold_back_others(session, claim, until)
    settle(session, held.sync, now)


def _begin_again(held: Held, now: datetime) -> None:
    """The record that the cursor names may be gone: walk from the first page, over what is known."""
    held.progress.cursor = None
    release(held, now)


def is_looping(progress: Progress) -> bool:
    """Whether the provider turns in circles: more stale pages in a row than all pages before them.

    A cursor whose record was deleted may lead back to the first page. Walking over the known pages
    again finds the way on, and takes no more of them than were read before.
    """
    return progress.stale_pages > progress.pages_read - progress.stale_pages


def _store(session: Session, claim: Claim, held: Held, page: Page, now: datetime) -> bool:
    """Append what is young enough and move the cursor; says whether this was the last page."""
    progress = held.progress
    cutoff = now - timedelta(days=held.sync.max_age_days) if held.sync.max_age_days else None
    records = [record for record in page.records if cutoff is None or not is_older(record, cutoff)]
    fresh = append(session, claim, progress.pass_id, records, now)
    has_moved = fresh > 0 or len(records) < len(page.records)
    is_stale = page.following is not None and (not has_moved or page.following == progress.cursor)
    if has_moved or not page.is_onward:
        progress.stale_pages = progress.stale_pages + 1 if is_stale else 0
        progress.pages_read += 1
    progress.pages_read = max(progress.pages_read, 1)
    progress.records_read += fresh
    progress.cursor = page.following
    return page.following is None or (cutoff is not None and ends_at(page, cutoff))


def _stop_looping(session: Session, claim: Claim, held: Held, now: datetime) -> None:
    message = f"{claim.provider} repeats the pages of {claim.collection_id}"
    begin_pass(held.progress)
    _note(session, claim, held, Failure(TroubleCode.COLLECTION_FAILED, message), now)


def _hold_back_others(session: Session, claim: Claim, until: datetime) -> None:
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
