"""Create: exactly one sync per connection, although the API's create is not idempotent.

The intent to create is committed with the claim, before anything is sent. A try that finds such an intent
from earlier looks for the sync by our connection id first and adopts it. Finding nothing proves nothing
while the lost request may still be committed, so it sends another one only after `settle`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from foundation.database import utc_now
from models import State
from worker.errors import NotFoundError, ProvisioningError, StillUncertainError, TransientError
from worker.management import ManagementApi, RemoteSync
from worker.plans import Plans, WantedSync
from worker.steps.streams import Streams
from worker.steps.verdict import Claim, Verdict
from worker.steps.wanted import changes, create_body, marker, wanted_of

FIRST_LOOK = timedelta(seconds=1)


@dataclass(frozen=True)
class Creating:
    """What creating needs besides the claim."""

    api: ManagementApi
    plans: Plans
    streams: Streams
    settle: timedelta
    """How long the API may still take to commit a create whose answer was lost."""
    note_intent: Callable[[Claim, datetime], None]
    """Commits, before a repeated create is sent, that it is about to be; raises if the row is not ours."""


def create(claim: Claim, creating: Creating) -> Verdict:
    """Adopt this connection's sync or create it, and bring it to what is wanted."""
    wanted = wanted_of(claim, creating.plans)
    sync = _adopt(claim, creating.api) or _create(claim, wanted, creating)
    changed = changes(claim, wanted, sync)
    if changed:
        sync = creating.api.update_sync(sync.id, changed)
    return _created(claim, sync)


def facts_after_error(claim: Claim, error: ProvisioningError) -> dict[str, object]:
    """The intent stands only where the create may have been carried out."""
    if isinstance(error, TransientError) and error.may_have_happened:
        return {}
    if isinstance(error, StillUncertainError):
        return {}
    return {"create_sent_at": claim.earlier_create_at}


def uncertain_for(claim: Claim, settle: timedelta, now: datetime) -> timedelta:
    """How much longer an earlier create may still come true."""
    if claim.earlier_create_at is None:
        return timedelta(0)
    return claim.earlier_create_at + settle - now


def _adopt(claim: Claim, api: ManagementApi) -> RemoteSync | None:
    """The sync an earlier try made, if any: the oldest one with our credential; all others of ours go."""
    connection = claim.connection
    if claim.earlier_create_at is None and connection.remote_sync_id is None:
        return None
    found = sorted(api.find_syncs(marker(claim)), key=_age)
    usable = [sync for sync in found if sync.credential_id in {None, connection.remote_credential_id}]
    for surplus in found:
        if surplus not in usable[:1]:
            api.delete_sync(surplus.id)  # a sync's credential cannot be changed, only the sync replaced
    return usable[0] if usable else None


def _create(claim: Claim, wanted: WantedSync, creating: Creating) -> RemoteSync:
    now = utc_now()
    remaining = uncertain_for(claim, creating.settle, now)
    if remaining > timedelta(0):
        raise StillUncertainError(
            "an earlier create may still be committed", retry_after_s=remaining.total_seconds()
        )
    body = create_body(claim, wanted, creating.streams.id_for(wanted))
    if claim.earlier_create_at is not None:
        creating.note_intent(claim, now)
    key = f"{claim.connection.id}.{claim.connection.revision}"
    try:
        return creating.api.create_sync(body, idempotency_key=key)
    except NotFoundError:
        creating.streams.forget()
        raise


def _created(claim: Claim, sync: RemoteSync) -> Verdict:
    adopted = claim.connection.remote_sync_id == sync.id
    return Verdict(
        why="sync created" if claim.earlier_create_at is None else "sync found or created",
        move=State.BACKFILLING,
        wait=FIRST_LOOK,
        facts={
            "remote_sync_id": sync.id,
            "remote_stream_id": sync.stream_id,
            "applied_revision": claim.connection.revision,
            "health": sync.health.status,
            "initial_backfill_completed_at": sync.initial_backfill_completed_at,
            "backfill_started_at": claim.connection.backfill_started_at if adopted else utc_now(),
        },
    )


def _age(sync: RemoteSync) -> tuple[float, str]:
    return (sync.created_at.timestamp() if sync.created_at else 0.0, sync.id)
