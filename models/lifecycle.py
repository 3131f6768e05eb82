"""The lifecycle of a connection: its states, the allowed moves, and the step that each state asks for."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where a connection stands. What each state means is in docs/lifecycle.md."""

    AWAITING_CREDENTIAL = "awaiting_credential"
    REQUESTED = "requested"
    CAPTURED = "captured"
    BACKFILLING = "backfilling"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    PAUSED = "paused"
    REMOVING = "removing"
    REMOVED = "removed"


class Step(StrEnum):
    """What a worker may have to do for a connection; the value is the task's name."""

    CAPTURE = "credential.capture"
    CREATE = "sync.create"
    POLL = "sync.poll"
    UPDATE = "sync.update"
    REMOVE = "sync.remove"


_S = State
ALLOWED_TRANSITIONS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        _S.AWAITING_CREDENTIAL: frozenset({_S.REQUESTED, _S.REMOVING}),
        _S.REQUESTED: frozenset({_S.CAPTURED, _S.FAILED, _S.REMOVING}),
        # a credential that arrives in the middle of things starts over: every step adopts what it finds
        _S.CAPTURED: frozenset({_S.BACKFILLING, _S.REQUESTED, _S.FAILED, _S.REMOVING}),
        _S.BACKFILLING: frozenset({_S.READY, _S.DEGRADED, _S.REQUESTED, _S.FAILED, _S.PAUSED, _S.REMOVING}),
        _S.READY: frozenset({_S.DEGRADED, _S.PAUSED, _S.REQUESTED, _S.REMOVING}),
        _S.DEGRADED: frozenset({_S.READY, _S.BACKFILLING, _S.REQUESTED, _S.FAILED, _S.PAUSED, _S.REMOVING}),
        _S.FAILED: frozenset({_S.REQUESTED, _S.BACKFILLING, _S.READY, _S.PAUSED, _S.REMOVING}),
        _S.PAUSED: frozenset({_S.BACKFILLING, _S.READY, _S.REQUESTED, _S.REMOVING}),
        _S.REMOVING: frozenset({_S.REMOVED}),
        _S.REMOVED: frozenset({_S.AWAITING_CREDENTIAL}),
    }
)

WITH_SYNC: Final = frozenset({_S.BACKFILLING, _S.READY, _S.DEGRADED, _S.PAUSED})
"""States in which a sync exists at the Management API and is watched."""

WATCHED: Final = WITH_SYNC | {_S.FAILED}
"""States whose sync, if there is one, is looked at: a failed connection recovers when its sync does."""


class InvalidTransitionError(Exception):
    """The lifecycle does not allow this move: a mistake of ours, never of a customer."""

    def __init__(self, current: State, target: State) -> None:
        super().__init__(current, target)
        self.current = current
        self.target = target

    def __str__(self) -> str:
        allowed = ", ".join(sorted(ALLOWED_TRANSITIONS[self.current]))
        return f"a connection cannot move from {self.current} to {self.target}; allowed: {allowed}"


def check_transition(current: State, target: State) -> None:
    """Raise unless the lifecycle allows this move."""
    if target not in ALLOWED_TRANSITIONS[current]:
        raise InvalidTransitionError(current, target)


def next_step(state: State, *, has_sync: bool) -> Step | None:
    """The step of the lifecycle that a connection in this state asks for."""
    if state in WATCHED:
        return Step.POLL if has_sync else None
    return {_S.REQUESTED: Step.CAPTURE, _S.CAPTURED: Step.CREATE, _S.REMOVING: Step.REMOVE}.get(state)


class TenantState(StrEnum):
    """What a tenant's connections add up to."""

    AWAITING_CREDENTIAL = "awaiting_credential"
    PROVISIONING = "provisioning"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    PAUSED = "paused"
    REMOVING = "removing"
    REMOVED = "removed"


def tenant_state(states: Iterable[State]) -> TenantState:
    """The worst news first: a tenant is ready when all of its connections are."""
    every = set(states)
    present = every - {State.REMOVED}
    if not present:
        return TenantState.REMOVED if every else TenantState.AWAITING_CREDENTIAL
    for state, verdict in TENANT_PRECEDENCE:
        if state in present:
            return verdict
    return TenantState.READY


TENANT_PRECEDENCE: Final = (
    (State.FAILED, TenantState.FAILED),
    (State.REMOVING, TenantState.REMOVING),
    (State.DEGRADED, TenantState.DEGRADED),
    (State.REQUESTED, TenantState.PROVISIONING),
    (State.CAPTURED, TenantState.PROVISIONING),
    (State.BACKFILLING, TenantState.PROVISIONING),
    (State.AWAITING_CREDENTIAL, TenantState.AWAITING_CREDENTIAL),
    (State.PAUSED, TenantState.PAUSED),
)
