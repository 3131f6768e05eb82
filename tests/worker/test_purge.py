"""Retention: what is older than the settings allow goes, in bounded steps; nothing younger goes."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from foundation.database import new_id, utc_now
from models import Attempt, AttemptOutcome, Connection, InboundEvent, State, Step, Tenant, Transition
from tests.support.events import event as event_of
from tests.support.events import stripe
from tests.support.intake import accepted, message
from tests.support.rows import NOW, a_tenant, add, added, all_of, stored
from worker import purge as purging
from worker.intake.accept import Intake
from worker.purge import oldest_id_of, purge
from worker.runtime import Runtime

A_MINUTE = timedelta(minutes=1)


def id_at(moment: datetime) -> UUID:
    """An id that a row got at this moment."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | (new_id().int & ((1 << 80) - 1)))


def history(runtime: Runtime, moment: datetime) -> None:
    """A row of each kind of history, made at this moment."""
    connection = added(runtime.database)
    ids = {"connection_id": connection.id, "tenant_id": connection.tenant_id}
    add(
        runtime.database,
        Attempt(
            id=id_at(moment),
            **ids,
            step=Step.CAPTURE,
            number=1,
            started_at=moment,
            finished_at=moment,
            outcome=AttemptOutcome.TRANSIENT,
        ),
        Transition(
            id=id_at(moment),
            **ids,
            at=moment,
            from_state=State.REQUESTED,
            to_state=State.CAPTURED,
            why="captured",
            attempt=1,
        ),
        InboundEvent(
            id=id_at(moment),
            source="app",
            message_id=str(new_id()),
            body_digest="0",
            type="tenant.created",
            occurred_at=moment,
            received_at=moment,
            tenant_id=connection.tenant_id,
        ),
    )


def counts(runtime: Runtime) -> tuple[int, int, int]:
    attempts, moves, events = (len(all_of(runtime.database, t)) for t in (Attempt, Transition, InboundEvent))
    return attempts, moves, events


def limit_of(runtime: Runtime) -> datetime:
    return utc_now() - timedelta(days=runtime.settings.history_days)


def test_old_history_goes_and_younger_stays(runtime: Runtime) -> None:
    """Attempts, moves and events beyond the limit are deleted; those at its near side are kept."""
    history(runtime, limit_of(runtime) - A_MINUTE)
    history(runtime, limit_of(runtime) + A_MINUTE)
    history(runtime, utc_now())

    purge(runtime)

    assert counts(runtime) == (2, 2, 2)
    assert min(row.finished_at for row in all_of(runtime.database, Attempt)) > limit_of(runtime)
    assert min(row.at for row in all_of(runtime.database, Transition)) > limit_of(runtime)
    assert min(row.received_at for row in all_of(runtime.database, InboundEvent)) > limit_of(runtime)


def test_much_old_history_goes_in_bounded_steps(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction deletes more than a step holds, and the whole is deleted all the same."""
    monkeypatch.setattr(purging, "ROWS_PER_STEP", 2)
    for _ in range(5):
        history(runtime, limit_of(runtime) - A_MINUTE)
    deleted: list[int] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE") and cursor.rowcount:
            deleted.append(cursor.rowcount)

    event.listen(runtime.database.engine, "after_cursor_execute", note)
    purge(runtime)
    event.remove(runtime.database.engine, "after_cursor_execute", note)

    assert counts(runtime) == (0, 0, 0)
    assert deleted == 3 * [2, 2, 1]


def test_oldest_go_first(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """History is deleted in the order of its ids, so that an interrupted purge leaves no gaps."""
    monkeypatch.setattr(purging, "ROWS_PER_STEP", 1)
    ages = [3, 1, 2]
    for days in ages:
        history(runtime, limit_of(runtime) - timedelta(days=days))
    left: list[set[datetime]] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM attempt") and cursor.rowcount:
            left.append({row.finished_at for row in all_of(runtime.database, Attempt)})

    event.listen(runtime.database.engine, "after_cursor_execute", note)
    purge(runtime)
    event.remove(runtime.database.engine, "after_cursor_execute", note)

    # seen from outside before each commit: what the steps before have left
    oldest_first = sorted(left[0])
    assert left == [set(oldest_first), set(oldest_first[1:]), set(oldest_first[2:])]


OLD_ENOUGH = timedelta(days=15)


@pytest.mark.parametrize(
    ("state", "age", "is_kept"),
    [
        (State.FAILED, OLD_ENOUGH, False),
        (State.AWAITING_CREDENTIAL, OLD_ENOUGH, False),
        (State.REMOVED, OLD_ENOUGH, False),
        (State.FAILED, timedelta(days=13), True),
        (State.REQUESTED, OLD_ENOUGH, True),
        (State.CAPTURED, OLD_ENOUGH, True),
        (State.READY, OLD_ENOUGH, True),
        (State.REMOVING, OLD_ENOUGH, True),
    ],
)
def test_secrets_of_failed_captures_are_erased(
    runtime: Runtime, state: State, age: timedelta, is_kept: bool
) -> None:
    """A credential that nobody will import any more is not kept; one that is still to be imported is."""
    row = added(runtime.database, state=state, sealed_credential="k.1", updated_at=utc_now() - age)

    purge(runtime)

    assert (stored(runtime.database, row).sealed_credential is not None) is is_kept


def test_credential_that_has_just_arrived_is_kept(runtime: Runtime) -> None:
    """It came for a connection that was removed long ago, whose tenant is about to sign up again."""
    tenant = a_tenant(is_removed=True)
    add(runtime.database, tenant)
    old = utc_now() - OLD_ENOUGH
    row = added(runtime.database, tenant, slot="default", state=State.REMOVED, updated_at=old)
    body = event_of("credential.provided", stripe(), external_id=tenant.external_id)
    accepted(runtime.database, Intake(runtime.vault, runtime.plans), message(body))

    purge(runtime)

    assert stored(runtime.database, row).sealed_credential is not None


def test_many_secrets_are_erased_in_bounded_steps(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction erases more than a step holds."""
    monkeypatch.setattr(purging, "ROWS_PER_STEP", 2)
    old = utc_now() - OLD_ENOUGH
    rows = [
        added(runtime.database, state=State.FAILED, sealed_credential="k.1", updated_at=old) for _ in range(5)
    ]

    purge(runtime)

    assert {stored(runtime.database, row).sealed_credential for row in rows} == {None}


def test_tenants_that_were_never_announced_are_forgotten(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped id leaves nothing behind; who is announced, or may still be, is kept."""
    monkeypatch.setattr(purging, "TENANTS_PER_STEP", 2)
    old = utc_now() - timedelta(days=runtime.settings.unannounced_days) - A_MINUTE
    strangers = [a_tenant(is_announced=False, updated_at=old) for _ in range(5)]
    young, known = a_tenant(is_announced=False), a_tenant(updated_at=old)
    add(runtime.database, *strangers, young, known)
    for tenant in (*strangers, young, known):
        added(runtime.database, tenant, state=State.AWAITING_CREDENTIAL, sealed_credential="k.1")

    purge(runtime)

    assert {row.id for row in all_of(runtime.database, Tenant)} == {young.id, known.id}
    assert {row.tenant_id for row in all_of(runtime.database, Connection)} == {young.id, known.id}


@given(st.timedeltas(timedelta(days=-18_000), timedelta(days=18_000)))
def test_ids_are_in_the_order_of_their_moments(distance: timedelta) -> None:
    """The smallest id of a moment divides the ids made before it from those made since."""
    moment = NOW + distance

    assert id_at(moment - timedelta(milliseconds=2)) < oldest_id_of(moment) <= id_at(moment)
    assert oldest_id_of(moment).version == 7
