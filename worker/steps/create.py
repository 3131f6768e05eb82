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
from worker.errors import (
    ApiRejectedError,
    NotFoundError,
    ProvisioningError,
    StillUncertainError,
    TransientError,
)
from worker.management import ManagementApi, RemoteSync
from worker.plans import Plans, WantedSync
from worker.steps.streams import Streams
from worker.steps.verdict import NOW, Claim, Verdict
from worker.steps.wanted import changes, create_body, marker, wanted_of

FIRST_LOOK = timedelta(seconds=1)
INTENT_HOLDS = timedelta(seconds=1)
"""`settle` counts from the intent, so a create that is sent later than this commits its intent anew."""


@dataclass(frozen=True)
class Creating:
    """What creating needs besides the claim."""

    api: ManagementApi
    plans: Plans
    streams: Streams
    settle: timedelta
    """How long the API may still take to commit a create whose answer was lost."""
    note_intent: Callable[[Claim, datetime], None]
    """Commits, before a repeated or a late create, that it is about to be sent; raises if it is not ours."""


def create(claim: Claim, creating: Creating) -> Verdict:
    """Adopt this connection's sync or create it; what it then still lacks is the update step's to change.

    After the create nothing else is called: its id must be recorded whatever happens next.
    """
    wanted = wanted_of(claim, creating.plans)
    sync = _adopt(claim, creating.api) or _create(claim, wanted, creating)
    return _created(claim, sync, is_as_wanted=not changes(claim, wanted, sync))


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
    stream_id = creating.streams.id_for(wanted)
    if claim.earlier_create_at is not None or utc_now() - claim.started_at > INTENT_HOLDS:
        creating.note_intent(claim, now)
    try:
        return _send(claim, wanted, creating.api, stream_id)
    except ApiRejectedError as exc:
        if not isinstance(exc, NotFoundError) and "stream_id" not in exc.fields:
            raise
        creating.streams.forget()  # it may have been deleted, and be another one by now
        another = creating.streams.id_for(wanted)
        if another == stream_id:
            raise
    return _send(claim, wanted, creating.api, another)


def _send(claim: Claim, wanted: WantedSync, api: ManagementApi, stream_id: str) -> RemoteSync:
    key = f"{claim.connection.id}.{claim.connection.revision}"
    return api.create_sync(create_body(claim, wanted, stream_id), idempotency_key=key)


def _created(claim: Claim, sync: RemoteSync, *, is_as_wanted: bool) -> Verdict:
    known = claim.connection.remote_sync_id == sync.id
    revision = claim.connection.revision
    return Verdict(
        why="sync created" if claim.earlier_create_at is None else "sync found or created",
        move=State.BACKFILLING,
        wait=FIRST_LOOK if is_as_wanted else NOW,
        facts={
            "remote_sync_id": sync.id,
            "remote_stream_id": sync.stream_id,
            "applied_revision": revision if is_as_wanted else revision - 1,
            "create_sent_at": None,
            "health": sync.health.status,
            "initial_backfill_completed_at": sync.initial_backfill_completed_at,
            "backfill_started_at": claim.connection.backfill_started_at if known else utc_now(),
        },
    )


def _age(sync: RemoteSync) -> tuple[float, str]:
    return (sync.created_at.timestamp() if sync.created_at else 0.0, sync.id)
