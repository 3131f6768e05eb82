"""Update: bring an existing sync to what the newest events and the plan want of it."""

from models import State
from worker.management import ManagementApi
from worker.plans import Plans, WantedSync
from worker.steps.verdict import NOW, Claim, Problem, Verdict
from worker.steps.wanted import changes, wanted_of


def update(claim: Claim, api: ManagementApi, plans: Plans) -> Verdict:
    """Send what differs, and nothing else."""
    wanted = wanted_of(claim, plans)
    remote = api.get_sync(str(claim.connection.remote_sync_id))
    changed = changes(claim, wanted, remote)
    if changed:
        api.update_sync(remote.id, changed)
    return Verdict(
        why=f"changed {', '.join(sorted(changed))}" if changed else "already as wanted",
        move=_move(claim.connection.state, wanted),
        wait=NOW,
        facts={"applied_revision": claim.connection.revision},
        problem=_impossible(wanted, remote.stream_id),
        is_eventful=bool(changed),
    )


def _move(state: State, wanted: WantedSync) -> State | None:
    if wanted.status == "disabled":
        return None if state is State.PAUSED else State.PAUSED
    return State.BACKFILLING if state is State.PAUSED else None


def _impossible(wanted: WantedSync, stream_id: str | None) -> Problem | None:
    if wanted.stream_id is None or stream_id is None or wanted.stream_id == stream_id:
        return None
    return Problem(
        code="stream_immutable",
        message=f"the sync writes to stream {stream_id}; a sync's stream cannot be changed",
        advice="Send tenant.deleted and tenant.created again to start over in another stream.",
    )
