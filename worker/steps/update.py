"""Update: bring an existing sync to what the newest events and the plan want of it."""

from models import State
from models.columns import JsonObject
from worker.errors import NotFoundError, TransientError
from worker.management import ManagementApi
from worker.plans import Plans, WantedSync
from worker.queue.verdict import Claim, Verdict
from worker.steps.wanted import changes, wanted_of


class SyncNotFoundError(TransientError):
    """The sync to be changed is gone, or the API does not find it at the moment."""

    code = "sync_not_found"
    was_answered = True
    advice = "Nothing to do: if the sync is gone, the connection becomes degraded and says what to do."


async def update(claim: Claim, api: ManagementApi, plans: Plans) -> Verdict:
    """Send what differs, and nothing else."""
    wanted = wanted_of(claim, plans)
    try:
        remote = await api.get_sync(str(claim.remote_sync_id))
        changed = changes(claim, wanted, remote)
        if changed:
            await api.update_sync(remote.id, changed)
    except NotFoundError as exc:
        # the watching will find out whether it is really gone; then it is created again with these wishes
        raise SyncNotFoundError(f"the sync to change was not found: {exc}") from exc
    return Verdict(
        did="updated" if changed else "unchanged",
        why=f"changed {', '.join(sorted(changed))}" if changed else "already as wanted",
        move=_move(claim.state, wanted),
        wait=None,
        facts={
            "applied_revision": claim.revision,
            "change_problem": _impossible(wanted, remote.stream_id),
        },
        is_eventful=True,
    )


def _move(state: State, wanted: WantedSync) -> State | None:
    if wanted.status == "disabled":
        return None if state in {State.PAUSED, State.FAILED} else State.PAUSED
    return State.BACKFILLING if state is State.PAUSED else None


def _impossible(wanted: WantedSync, stream_id: str | None) -> JsonObject | None:
    if wanted.stream_id is None or stream_id is None or wanted.stream_id == stream_id:
        return None
    return {
        "code": "stream_immutable",
        "message": f"the sync writes to stream {stream_id}; a sync's stream cannot be changed",
        "advice": "Send tenant.deleted and tenant.created again to start over in another stream.",
    }
