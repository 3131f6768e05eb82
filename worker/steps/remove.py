"""Remove: delete the sync and the credential at the Management API, then forget what was secret."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from models import State
from worker.errors import ApiRejectedError, PermanentError, StillUncertainError, TransientError
from worker.management import ManagementApi
from worker.queue.desired import is_same_id
from worker.queue.verdict import Claim, Verdict
from worker.steps.create import uncertain_for
from worker.steps.wanted import marker

Release = Callable[[str], Awaitable[bool]]
"""Commits that this credential is about to be deleted; false if another connection still uses it."""


class NotFoundYetError(TransientError):
    """The API does not know what is to be deleted. Only two such answers in a row are believed."""

    code = "removal_unconfirmed"
    was_answered = True
    advice = "Nothing to do: it is asked for again before the removal counts as done."


class CredentialKeptError(PermanentError):
    """The Management API refuses to delete the credential; until it does, the state stays `removing`."""

    code = "credential_kept"
    advice = (
        "Delete the syncs that still use this credential at the Management API; it is tried again slowly."
    )


async def remove(claim: Claim, api: ManagementApi, *, settle: timedelta, release: Release) -> Verdict:
    """Delete every sync of this connection, also one that a lost create left behind."""
    is_gone = True
    if claim.remote_sync_id is not None:
        is_gone = await api.delete_sync(claim.remote_sync_id)
    if claim.remote_sync_id is not None or claim.earlier_create_at is not None:
        await _remove_strays(claim, api, settle)
    for credential_id in await _own_credentials(claim, api):
        if await release(credential_id):
            is_gone &= await _delete_credential(credential_id, api)
    if not is_gone and claim.error_code != NotFoundYetError.code:
        raise NotFoundYetError("the API does not know what is to be deleted; it is asked once more")
    return Verdict(
        did="removed",
        why="removed at the Management API",
        move=State.REMOVED,
        wait=None,
        facts={
            "remote_sync_id": None,
            "remote_stream_id": None,
            "remote_credential_id": None,
            "create_sent_at": None,
            "backfill_started_at": None,
            "initial_backfill_completed_at": None,
            "ready_at": None,
            "health": None,
            "change_problem": None,
        },
    )


async def _remove_strays(claim: Claim, api: ManagementApi, settle: timedelta) -> None:
    for stray in await api.find_syncs(marker(claim)):
        await api.delete_sync(stray.id)
    remaining = uncertain_for(claim, settle)
    if remaining > timedelta(0):
        raise StillUncertainError(
            "a create may still be committed and would be left behind",
            retry_after_s=remaining.total_seconds(),
        )


async def _own_credentials(claim: Claim, api: ManagementApi) -> set[str]:
    """The credential we know, and every one that an import of ours made.

    One that an event named by its id belongs to whoever imported it, unless our mark shows that we did.
    """
    named = str(claim.overrides.get("credential_id"))
    known = claim.remote_credential_id
    own = {known} if known is not None and not is_same_id(named, known) else set()
    imported: set[str] = set()
    if claim.has_given_credential:  # otherwise none was ever given, so none imported
        imported = {credential.id for credential in await api.find_credentials(marker(claim))}
    return own | imported


async def _delete_credential(credential_id: str, api: ManagementApi) -> bool:
    try:
        return await api.delete_credential(credential_id)
    except ApiRejectedError as exc:
        raise CredentialKeptError(f"credential {credential_id} was not deleted: {exc}") from exc
