"""What the newest events want of a connection, and the work that follows from it."""

from models import Connection, Move, State, Step, Tenant
from models.lifecycle import WITH_SYNC

_STARTS_OVER = (WITH_SYNC - {State.PAUSED}) | {State.AWAITING_CREDENTIAL, State.CAPTURED, State.FAILED}


def apply_desired(
    tenant: Tenant,
    connection: Connection,
    *,
    credential_given: bool = False,
    task_id: str | None = None,
) -> list[Move]:
    """Move the connection towards what is wanted of it; returns the moves made, in order.

    May be called at any time and any number of times. A step under way keeps its lease: its facts will be
    recorded, its own move will not, and the next step starts when it has ended.
    """
    moves: list[Move] = []

    def move(target: State, why: str) -> None:
        moves.append(connection.transition_to(target, why=why, task_id=task_id))
        connection.forget_error()

    if tenant.is_removed:
        if not _is_newer_than_deletion(tenant, connection):
            connection.sealed_credential = None
        if connection.state not in {State.REMOVING, State.REMOVED}:
            move(State.REMOVING, "the tenant was deleted")
        return moves
    if not tenant.is_announced:
        return moves
    if connection.state is State.REMOVED:
        move(State.AWAITING_CREDENTIAL, "the tenant signed up again")
        connection.released_credential_id = None
    if connection.state in _STARTS_OVER and _has_new_credential(connection, given=credential_given):
        move(State.REQUESTED, "a credential is here")
    elif connection.state is State.PAUSED and _is_resumed_with_credential(connection):
        move(State.REQUESTED, "resumed with a new credential")
    elif connection.state is State.FAILED and connection.is_outdated and connection.remote_credential_id:
        move(State.REQUESTED, "what is wanted has changed")
    return moves


def wanted_steps(connection: Connection) -> tuple[Step | None, Step | None]:
    """The next step of the lifecycle, and the step that brings the sync up to date if it is behind."""
    is_behind = connection.state in WITH_SYNC and connection.is_outdated
    return connection.next_step, Step.UPDATE if is_behind else None


def _has_new_credential(connection: Connection, *, given: bool) -> bool:
    if connection.sealed_credential is not None:
        return True
    named = connection.overrides.get("credential_id")
    return named is not None and (given or not is_same_id(str(named), connection.remote_credential_id))


def is_same_id(named: str, known: str | None) -> bool:
    """An API may spell an id in its own way: a UUID in lower case, for example."""
    return known is not None and named.casefold() == known.casefold()


def _is_resumed_with_credential(connection: Connection) -> bool:
    is_wanted_active = connection.overrides.get("status", "active") == "active"
    return is_wanted_active and _has_new_credential(connection, given=False)


def _is_newer_than_deletion(tenant: Tenant, connection: Connection) -> bool:
    """A credential that overtook the event of signing up again waits for it; any other goes at once."""
    return connection.clock.get("credential", "") > tenant.clock.get("presence", "")
