"""Remove: delete the sync and the credential at the Management API, then forget what was secret."""

from collections.abc import Callable
from datetime import timedelta

import structlog

from foundation.database import utc_now
from models import State
from worker.errors import ApiRejectedError, StillUncertainError
from worker.management import ManagementApi
from worker.steps.create import uncertain_for
from worker.steps.verdict import Claim, Verdict
from worker.steps.wanted import marker

log = structlog.get_logger()

IsShared = Callable[[str], bool]
"""Whether another connection still uses this credential: imports of one account share it."""


def remove(claim: Claim, api: ManagementApi, *, settle: timedelta, is_shared: IsShared) -> Verdict:
    """Delete every sync of this connection, also one that a lost create left behind."""
    connection = claim.connection
    if connection.remote_sync_id is not None:
        api.delete_sync(connection.remote_sync_id)
    if connection.remote_sync_id is not None or claim.earlier_create_at is not None:
        _remove_strays(claim, api, settle)
    for credential_id in _own_credentials(claim, api):
        if not is_shared(credential_id):
            _delete_credential(credential_id, api)
    return Verdict(
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
        },
    )


def _remove_strays(claim: Claim, api: ManagementApi, settle: timedelta) -> None:
    for stray in api.find_syncs(marker(claim)):
        api.delete_sync(stray.id)
    remaining = uncertain_for(claim, settle, utc_now())
    if remaining > timedelta(0):
        raise StillUncertainError(
            "a create may still be committed and would be left behind",
            retry_after_s=remaining.total_seconds(),
        )


def _own_credentials(claim: Claim, api: ManagementApi) -> set[str]:
    """The credential we know, and any that an import left behind whose answer was lost.

    One that an event named by id belongs to whoever imported it.
    """
    connection = claim.connection
    ours = {connection.remote_credential_id} if connection.remote_credential_id else set()
    if "credential" in connection.clock:  # otherwise none was ever given, so none imported
        ours |= {credential.id for credential in api.find_credentials(marker(claim))}
    return ours - {str(connection.overrides.get("credential_id"))}


def _delete_credential(credential_id: str, api: ManagementApi) -> None:
    try:
        api.delete_credential(credential_id)
    except ApiRejectedError as exc:  # in use by a sync that is not ours: not for us to break
        log.warning("credential.kept", credential_id=credential_id, status=exc.status, reason=exc.summary)
