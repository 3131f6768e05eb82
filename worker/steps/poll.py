"""Poll: read syncs, few or many at once, and judge what their state means for the connection."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from models import AttemptOutcome, State
from worker.errors import NotFoundError, ProvisioningError
from worker.management import AsyncManagementApi, RemoteSync
from worker.retry import backfill_poll_delay, jittered
from worker.steps.verdict import Claim, Problem, Verdict

Read = RemoteSync | ProvisioningError

LIST_AT_LEAST = 5
LISTED_PER_GET = 40  # reading one more sync in a list costs about a fortieth of a request
LIST_AT_MOST = 20_000
_ON_REFUSED_CREDENTIAL = {
    State.BACKFILLING: State.FAILED,
    State.READY: State.DEGRADED,
    State.DEGRADED: State.FAILED,
    State.PAUSED: State.BACKFILLING,
}


def streams_to_list(due: Mapping[str, int], watched: Mapping[str, int]) -> set[str]:
    """The streams whose due syncs are cheaper read with one list than one by one."""
    return {
        stream
        for stream, count in due.items()
        if count >= LIST_AT_LEAST and watched.get(stream, 0) <= min(count * LISTED_PER_GET, LIST_AT_MOST)
    }


async def read_syncs(
    claims: Sequence[Claim], watched: Mapping[str, int], api: AsyncManagementApi
) -> list[tuple[Claim, Read]]:
    """Read the sync of every claim; what a list lacks is asked for by id before it counts as gone."""
    due = Counter(c.connection.remote_stream_id for c in claims if c.connection.remote_stream_id is not None)
    ids = [str(claim.connection.remote_sync_id) for claim in claims]
    found: dict[str, Read] = {}
    for stream_id in streams_to_list(due, watched):
        try:
            found.update(await api.list_syncs(stream_id=stream_id, only=set(ids)))
        except ProvisioningError:
            continue  # the gets below meet the same trouble, and say so for each connection
    found.update(await api.get_syncs(sync_id for sync_id in ids if sync_id not in found))
    return [(claim, found[sync_id]) for claim, sync_id in zip(claims, ids, strict=True)]


def due_streams(claims: Sequence[Claim]) -> set[str]:
    """The streams that these claims' syncs write to."""
    by_stream: defaultdict[str, int] = defaultdict(int)
    for claim in claims:
        if claim.connection.remote_stream_id is not None:
            by_stream[claim.connection.remote_stream_id] += 1
    return {stream for stream, count in by_stream.items() if count >= LIST_AT_LEAST}


def judge(claim: Claim, sync: RemoteSync, *, now: datetime, health_pace: timedelta) -> Verdict:
    """What the state of a sync means: where its connection moves, and when to look again."""
    connection = claim.connection
    target, why, problem = _target(connection.state, sync)
    waits = {State.READY: jittered(health_pace), State.PAUSED: jittered(health_pace), State.FAILED: None}
    age = now - (connection.backfill_started_at or now)
    return Verdict(
        why=why,
        move=target if target is not connection.state else None,
        wait=waits.get(target, backfill_poll_delay(age)),
        facts={
            "polls": connection.polls + 1,
            "polled_at": now,
            "health": sync.health.status,
            "initial_backfill_completed_at": sync.initial_backfill_completed_at
            or connection.initial_backfill_completed_at,
        },
        problem=problem,
        outcome=AttemptOutcome.PERMANENT if target is State.FAILED else AttemptOutcome.SUCCEEDED,
        is_eventful=target is not connection.state,
    )


def judge_missing(claim: Claim, error: NotFoundError, *, now: datetime, health_pace: timedelta) -> Verdict:
    """The API no longer knows the sync: somebody deleted it."""
    can_degrade = claim.connection.state in {State.BACKFILLING, State.READY}
    return Verdict(
        why="sync vanished",
        move=State.DEGRADED if can_degrade else None,
        wait=jittered(health_pace),
        facts={"polls": claim.connection.polls + 1, "polled_at": now, "health": None},
        problem=Problem(
            code="sync_vanished",
            message=f"the Management API no longer knows the sync: {error}",
            advice="Send credential.provided to have it created again, or tenant.deleted to let it go.",
        ),
        outcome=AttemptOutcome.PERMANENT,
        is_eventful=can_degrade,
    )


def _target(state: State, sync: RemoteSync) -> tuple[State, str, Problem | None]:
    health = sync.health
    if sync.status == "disabled":
        return State.PAUSED, "the sync is disabled", None
    if health.blames_credential:
        return _credential_rejected(state, health.message)
    if health.status == "error" or (health.is_bad and state in {State.READY, State.DEGRADED}):
        return _unhealthy(state, sync)
    if health.is_good and sync.initial_backfill_completed_at is not None:
        return State.READY, "healthy and backfilled", None
    if state is State.READY:
        return State.READY, "still backfilled", None
    problem = _noted(sync) if health.is_bad else None
    return State.BACKFILLING, "the initial backfill runs", problem


def _credential_rejected(state: State, message: str | None) -> tuple[State, str, Problem | None]:
    problem = Problem(
        code="credential_rejected",
        message=message or "the provider refuses the credential",
        advice="Ask the customer for a working credential and send it as credential.provided.",
    )
    # what worked before gets a second look before a person is called
    target = _ON_REFUSED_CREDENTIAL[state]
    return target, "the provider refuses the credential", problem


def _unhealthy(state: State, sync: RemoteSync) -> tuple[State, str, Problem | None]:
    target = State.BACKFILLING if state is State.PAUSED else State.DEGRADED
    return target, f"the sync reports {sync.health.status}", _noted(sync)


def _noted(sync: RemoteSync) -> Problem:
    part = f" ({sync.health.part})" if sync.health.part else ""
    return Problem(
        code=f"sync_{sync.health.status}",
        message=sync.health.message or f"the sync reports {sync.health.status}{part}",
        advice="Watched and recovers by itself when the provider does; look at the sync if it lasts.",
    )
