"""Create: exactly one sync per connection, although the API's create is not idempotent.

The intent to create is committed before anything is sent. A try that finds an intent from earlier looks for
the sync first: by its id if it is known, else by our connection id in its metadata. Finding nothing proves
nothing while the lost request may still be committed, so it sends another create only after `settle`.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

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
from worker.queue.verdict import Claim, Verdict
from worker.steps.streams import Streams
from worker.steps.wanted import changes, create_body, marker, wanted_of

FIRST_LOOK = timedelta(seconds=1)
INTENT_HOLDS_S = 1.0
"""`settle` counts from the intent, so a create that is sent later than this commits its intent anew."""


class SyncMissingError(TransientError):
    """The API does not know the sync that we know. Only two such answers in a row are believed."""

    code = "sync_missing"
    was_answered = True
    advice = "Nothing to do: it is asked for again before another sync is created."


@dataclass(frozen=True)
class Creating:
    """What creating needs besides the claim."""

    api: ManagementApi
    plans: Plans
    streams: Streams
    settle: timedelta
    """How long the API may still take to commit a create whose answer was lost."""
    note_intent: Callable[[Claim], Awaitable[None]]
    """Commits, before a repeated or a late create, that it is about to be sent; raises if it is not ours."""


async def create(claim: Claim, creating: Creating) -> Verdict:
    """Adopt this connection's sync or create it; what it then still lacks is the update step's to change.

    After the create nothing else is called: its id must be recorded whatever happens next.
    """
    wanted = wanted_of(claim, creating.plans)
    adopted = await _adopt(claim, creating.api)
    sync = adopted or await _create(claim, wanted, creating)
    return _created(
        claim, sync, is_adopted=adopted is not None, is_as_wanted=not changes(claim, wanted, sync)
    )


def facts_after_error(claim: Claim, error: ProvisioningError) -> dict[str, object]:
    """The intent stands only where the create may have been carried out."""
    if isinstance(error, TransientError) and error.may_have_happened:
        return {}
    if isinstance(error, StillUncertainError):
        return {}
    return {"create_sent_at": claim.earlier_create_at}


def uncertain_for(claim: Claim, settle: timedelta) -> timedelta:
    """How much longer an earlier create may still come true."""
    if claim.earlier_create_at is None:
        return timedelta(0)
    return claim.earlier_create_at + settle - claim.now()


async def _adopt(claim: Claim, api: ManagementApi) -> RemoteSync | None:
    """The sync an earlier try made, if any: the oldest one with our credential; all others of ours go."""
    if claim.earlier_create_at is None and claim.remote_sync_id is None:
        return None
    found = sorted(await _ours(claim, api), key=_age)
    usable = [sync for sync in found if sync.credential_id in {None, claim.remote_credential_id}]
    for surplus in found:
        if surplus not in usable[:1]:
            await api.delete_sync(surplus.id)  # a sync's credential cannot be changed, only the sync replaced
    return usable[0] if usable else None


async def _ours(claim: Claim, api: ManagementApi) -> list[RemoteSync]:
    """Every sync of this connection: the known one, and those that carry our mark.

    The known one counts without the mark too: a change of its metadata by someone else may have removed it.
    """
    marked = {sync.id: sync for sync in await api.find_syncs(marker(claim))}
    if claim.remote_sync_id is not None and claim.remote_sync_id not in marked:
        try:
            known = await api.get_sync(claim.remote_sync_id)
        except NotFoundError as exc:
            if claim.error_code != SyncMissingError.code:
                raise SyncMissingError(f"the known sync is asked for again: {exc}") from exc
            return list(marked.values())
        marked[known.id] = known
    return list(marked.values())


async def _create(claim: Claim, wanted: WantedSync, creating: Creating) -> RemoteSync:
    remaining = uncertain_for(claim, creating.settle)
    if remaining > timedelta(0):
        raise StillUncertainError(
            "an earlier create may still be committed", retry_after_s=remaining.total_seconds()
        )
    stream_id = await creating.streams.id_for(wanted)
    try:
        return await _send(claim, wanted, creating, stream_id)
    except ApiRejectedError as exc:
        if not isinstance(exc, NotFoundError) and "stream_id" not in exc.fields:
            raise
        creating.streams.forget()  # it may have been deleted, and be another one by now
        another = await creating.streams.id_for(wanted)
        if another == stream_id:
            raise
    return await _send(claim, wanted, creating, another)


async def _send(claim: Claim, wanted: WantedSync, creating: Creating, stream_id: str) -> RemoteSync:
    """Send the create. The intent is renewed when its turn has come, however long that took."""

    async def renew_intent() -> None:
        if claim.earlier_create_at is not None or time.monotonic() - claim.claimed_s > INTENT_HOLDS_S:
            await creating.note_intent(claim)

    key = f"{claim.connection_id}.{claim.revision}"
    body = create_body(claim, wanted, stream_id)
    return await creating.api.create_sync(body, idempotency_key=key, before=renew_intent)


def _created(claim: Claim, sync: RemoteSync, *, is_adopted: bool, is_as_wanted: bool) -> Verdict:
    known = claim.remote_sync_id == sync.id
    return Verdict(
        did="adopted" if is_adopted else "created",
        why="sync found" if is_adopted else "sync created",
        move=State.BACKFILLING,
        wait=FIRST_LOOK,
        facts={
            "remote_sync_id": sync.id,
            "remote_stream_id": sync.stream_id,
            "applied_revision": claim.revision if is_as_wanted else claim.revision - 1,
            "create_sent_at": None,
            **({"change_problem": None} if is_as_wanted else {}),
            "health": sync.health.status,
            "initial_backfill_completed_at": sync.initial_backfill_completed_at,
            "backfill_started_at": claim.backfill_started_at if known else claim.now(),
        },
    )


def _age(sync: RemoteSync) -> tuple[float, str]:
    return (sync.created_at.timestamp() if sync.created_at else 0.0, sync.id)
