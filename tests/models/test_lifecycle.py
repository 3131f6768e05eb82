"""The lifecycle: which moves there are, what each state asks for, what a tenant's states add up to."""

import itertools
import pickle
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Connection, State, Step, Tenant, TenantState, tenant_state
from models.lifecycle import (
    ALLOWED_TRANSITIONS,
    TENANT_PRECEDENCE,
    WITH_SYNC,
    InvalidTransitionError,
    check_transition,
    next_step,
)
from tests.support.rows import NOW, a_connection, a_tenant, a_work

DOCUMENTED = {
    "awaiting_credential": "requested removing",
    "requested": "captured failed removing",
    "captured": "backfilling requested failed removing",
    "backfilling": "ready degraded requested failed paused removing",
    "ready": "degraded paused requested removing",
    "degraded": "ready backfilling requested failed paused removing",
    "failed": "requested backfilling ready paused removing",
    "paused": "backfilling ready requested removing",
    "removing": "removed",
    "removed": "awaiting_credential",
}
"""The table of the design; a credential that arrives in the middle of things leads back to `requested`."""

PAIRS = [(State(a), State(b), b in DOCUMENTED[a].split()) for a in DOCUMENTED for b in DOCUMENTED]


def test_every_state_is_documented() -> None:
    """The table has a line for every state and names no other."""
    assert set(DOCUMENTED) == set(State) == set(ALLOWED_TRANSITIONS)


@pytest.mark.parametrize(("current", "target", "allowed"), PAIRS, ids=lambda value: str(value))
def test_pair_is_allowed_or_refused(current: State, target: State, allowed: bool) -> None:
    """Each of the hundred pairs is either a move of the table or raises and changes nothing."""
    connection = a_connection(a_tenant(), state=current)

    if allowed:
        check_transition(current, target)
        assert connection.transition_to(target, why="test").to_state is target
        assert connection.state is target
    else:
        with pytest.raises(InvalidTransitionError):
            connection.transition_to(target, why="test")
        assert connection.state is current


def test_refused_move_says_what_would_be_allowed() -> None:
    """The error names both states and the moves there are, also after a journey between processes."""
    error = pickle.loads(pickle.dumps(InvalidTransitionError(State.REMOVING, State.READY)))  # noqa: S301  # ours

    assert str(error) == "a connection cannot move from removing to ready; allowed: removed"
    assert (error.current, error.target) == (State.REMOVING, State.READY)


def test_every_state_can_be_removed_and_come_back() -> None:
    """From every state a way leads to `removed`, and from there to every other state."""

    def reachable(start: State) -> set[State]:
        seen: set[State] = set()
        ahead = [start]
        while ahead:
            for state in ALLOWED_TRANSITIONS[ahead.pop()] - seen:
                seen.add(state)
                ahead.append(state)
        return seen

    assert all(reachable(state) == set(State) for state in State)


def test_move_leaves_history() -> None:
    """The history row tells when, from where, to where, why, at which attempt and in which task."""
    connection = a_connection(a_tenant(), state=State.REQUESTED)

    moved = connection.transition_to(State.CAPTURED, why="credential captured", attempt=3, task_id="task-1")

    assert (moved.connection_id, moved.tenant_id) == (connection.id, connection.tenant_id)
    assert (moved.from_state, moved.to_state) == (State.REQUESTED, State.CAPTURED)
    assert (moved.why, moved.attempt, moved.task_id) == ("credential captured", 3, "task-1")
    assert moved.at == connection.updated_at


def test_ready_at_is_the_first_time() -> None:
    """When a connection became ready for the first time stays, however often it becomes so again."""
    connection = a_connection(a_tenant(), state=State.BACKFILLING)

    first = connection.transition_to(State.READY, why="backfilled").at
    connection.transition_to(State.DEGRADED, why="trouble")
    connection.transition_to(State.READY, why="recovered")

    assert connection.ready_at == first


STEPS = {
    (State.REQUESTED, False): Step.CAPTURE,
    (State.REQUESTED, True): Step.CAPTURE,
    (State.CAPTURED, False): Step.CREATE,
    (State.CAPTURED, True): Step.CREATE,
    (State.REMOVING, False): Step.REMOVE,
    (State.REMOVING, True): Step.REMOVE,
    **{(state, True): Step.POLL for state in (*WITH_SYNC, State.FAILED)},
}


@pytest.mark.parametrize(("state", "has_sync"), list(itertools.product(State, [False, True])))
def test_next_step_of_each_state(state: State, has_sync: bool) -> None:
    """Each state asks for one step at most. A failed connection is watched as long as it has a sync."""
    assert next_step(state, has_sync=has_sync) is STEPS.get((state, has_sync))


def test_outdated_means_that_the_sync_lacks_a_wanted_change() -> None:
    """A change that is not applied yet is work beside the lifecycle: the sync is watched all the same."""
    connection = a_connection(a_tenant(), state=State.READY, revision=2, applied_revision=1)

    assert connection.is_outdated
    assert connection.next_step is Step.POLL

    connection.applied_revision = 2
    assert not connection.is_outdated


def test_wanted_step_gets_a_full_set_of_attempts() -> None:
    """Work that is asked for is due at its moment, in its turn, and starts to count anew."""
    work = a_work(a_connection(a_tenant()), attempts=7)
    turn = NOW + timedelta(seconds=3)

    work.want(Step.CREATE, due_at=NOW, turn_at=turn)

    assert (work.step, work.due_at, work.turn_at, work.attempts) == (Step.CREATE, NOW, turn, 0)


def test_turn_is_the_moment_of_being_due_unless_told_otherwise() -> None:
    """Only a tenant's surplus has a later turn."""
    work = a_work(a_connection(a_tenant()))

    work.want(Step.CREATE, due_at=NOW)

    assert work.turn_at == work.due_at == NOW


def test_nothing_wanted_is_never_due() -> None:
    """A connection that waits for somebody has no moment at which it is due."""
    work = a_work(a_connection(a_tenant()), attempts=7)

    work.want(None, due_at=NOW)

    assert (work.due_at, work.turn_at, work.attempts) == (None, None, 0)


@pytest.mark.parametrize(
    ("until", "is_leased"), [(None, False), (NOW, False), (NOW + timedelta(microseconds=1), True)]
)
def test_lease_ends_at_its_moment(until: datetime | None, is_leased: bool) -> None:
    """A lease holds until the moment it names, not longer."""
    assert a_work(a_connection(a_tenant()), leased_until=until).is_leased(NOW) is is_leased


def combinations() -> Iterator[frozenset[State]]:
    for size in range(len(State) + 1):
        yield from map(frozenset, itertools.combinations(State, size))


def expected_tenant_state(states: frozenset[State]) -> str:
    """The worst news first, spelled out."""
    alive = {str(state) for state in states} - {"removed"}
    if not alive:
        return "removed" if states else "awaiting_credential"
    for one in ("failed", "removing", "degraded"):
        if one in alive:
            return one
    if alive & {"requested", "captured", "backfilling"}:
        return "provisioning"
    for one in ("awaiting_credential", "paused"):
        if one in alive:
            return one
    return "ready"


def test_tenant_state_of_every_combination() -> None:
    """Each of the 1,024 combinations of states adds up to the worst among them."""
    wrong = [states for states in combinations() if tenant_state(states) != expected_tenant_state(states)]

    assert wrong == []


@given(st.lists(st.sampled_from(State), max_size=8))
def test_tenant_state_depends_on_nothing_but_the_states_present(states: list[State]) -> None:
    """Neither order nor number matter, nor whether the states come one by one."""
    assert tenant_state(iter(states)) is tenant_state(sorted(set(states)))


def test_every_state_has_its_place_in_the_precedence() -> None:
    """A new state cannot be forgotten: only the best, `ready`, and `removed` have no place."""
    assert {state for state, _ in TENANT_PRECEDENCE} == set(State) - {State.READY, State.REMOVED}
    assert {verdict for _, verdict in TENANT_PRECEDENCE} == set(TenantState) - {
        TenantState.READY,
        TenantState.REMOVED,
    }


def test_new_rows_start_at_the_beginning() -> None:
    """A connection begins without a credential, and a tenant unannounced and alive."""
    tenant = Tenant(external_id="x", plan="default")
    connection = Connection(tenant_id=tenant.id, provider="stripe")

    assert connection.state is State.AWAITING_CREDENTIAL
    assert (connection.slot, connection.revision, connection.applied_revision) == ("default", 1, 0)
    assert (tenant.is_announced, tenant.is_removed) == (False, False)
