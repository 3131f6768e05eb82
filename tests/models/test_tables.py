"""The tables: what the schema itself refuses, and what comes back from it."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from foundation.database import Database
from models import (
    Attempt,
    AttemptOutcome,
    Connection,
    InboundEvent,
    Lane,
    Row,
    State,
    Step,
    Tenant,
    Transition,
)
from tests.support.rows import NOW, a_connection, a_tenant, a_work, add, added, stored, work_of


def test_connection_comes_back_as_it_was_stored(database: Database) -> None:
    """Enums, JSON and instants come back as what they are, not as texts."""
    connection = added(
        database,
        state=State.READY,
        overrides={"collection_ids": ["stripe:customer"], "max_age_days": None},
        clock={"credential": "2026"},
        refused_at=NOW,
    )

    back = stored(database, connection)

    assert back.state is State.READY
    assert back.overrides == {"collection_ids": ["stripe:customer"], "max_age_days": None}
    assert back.refused_at == NOW
    assert back.refused_at.utcoffset() == timedelta(0)


def test_states_are_stored_by_value(database: Database) -> None:
    """The database holds `awaiting_credential`, as documents and other programs know it."""
    added(database, state=State.AWAITING_CREDENTIAL)

    with database.read() as session:
        assert session.execute(text("SELECT state FROM connection")).scalar_one() == "awaiting_credential"


def test_work_comes_back_as_it_was_stored(database: Database) -> None:
    """A connection has one row of work for each lane, with its instants in UTC."""
    connection = added(database, state=State.READY)
    add(database, a_work(connection, lane=Lane.CHANGES, due_at=NOW, leased_until=NOW))

    polling, changing = work_of(database, connection), work_of(database, connection, Lane.CHANGES)

    assert (polling.lane, polling.step, polling.leased_until) == (Lane.LIFECYCLE, Step.POLL, None)
    assert (changing.lane, changing.step) == (Lane.CHANGES, Step.UPDATE)
    assert changing.due_at == changing.turn_at == changing.leased_until == NOW
    with pytest.raises(IntegrityError):
        add(database, a_work(connection))


def test_absent_problem_is_null(database: Database) -> None:
    """No problem is the database's NULL and no JSON, so that an index can leave it out."""
    added(database, state=State.READY)

    with database.read() as session:
        absent = session.execute(text("SELECT count(*) FROM connection WHERE change_problem IS NULL"))
        assert absent.scalar_one() == 1


def test_external_id_is_unique(database: Database) -> None:
    """There is one tenant for each of the user's customers."""
    add(database, a_tenant(external_id="org_1"))

    with pytest.raises(IntegrityError):
        add(database, a_tenant(external_id="org_1"))


def test_provider_and_slot_are_unique_within_a_tenant(database: Database) -> None:
    """A tenant has one connection for each slot of a provider; other slots and tenants do not matter."""
    one, other = a_tenant(), a_tenant()
    add(database, one, other)
    add(database, a_connection(one, slot="a"), a_connection(one, slot="b"), a_connection(other, slot="a"))

    with pytest.raises(IntegrityError):
        add(database, a_connection(one, slot="a"))


def test_message_id_is_unique_within_a_source(database: Database) -> None:
    """The inbox holds each message of a source once; another source may use the same id."""
    tenant = a_tenant()
    add(database, tenant)

    def message(source: str) -> InboundEvent:
        return InboundEvent(
            source=source,
            message_id="msg_1",
            body_digest="0",
            type="tenant.created",
            occurred_at=NOW,
            tenant_id=tenant.id,
        )

    add(database, message("app"), message("other"))

    with pytest.raises(IntegrityError):
        add(database, message("app"))


def test_rows_refer_to_what_exists(database: Database) -> None:
    """No connection without its tenant, no history without its connection."""
    orphan = a_connection(a_tenant())

    with pytest.raises(IntegrityError):
        add(database, orphan)


def test_history_comes_back(database: Database) -> None:
    """Moves and attempts are stored with what they tell."""
    connection = added(database, state=State.REQUESTED)
    attempt = Attempt(
        connection_id=connection.id,
        tenant_id=connection.tenant_id,
        step=Step.CAPTURE,
        number=1,
        started_at=NOW,
        outcome=AttemptOutcome.TRANSIENT,
    )

    moved = connection.transition_to(State.CAPTURED, why="captured")
    add(database, attempt, Transition(**moved.values()))

    with database.read() as session:
        assert session.exec(select(Attempt.step, Attempt.outcome)).one() == (
            Step.CAPTURE,
            AttemptOutcome.TRANSIENT,
        )
        assert session.exec(select(Transition.from_state, Transition.to_state)).one() == (
            State.REQUESTED,
            State.CAPTURED,
        )


def test_tables_of_other_services_stay_apart() -> None:
    """The worker's tables have a registry of their own, so no migration ever mixes in the engine's."""
    assert {Tenant, Connection} <= {mapper.class_ for mapper in Row._sa_registry.mappers}
    assert set(Row.metadata.tables) == {
        "tenant",
        "connection",
        "work",
        "change_cursor",
        "inbound_event",
        "transition",
        "attempt",
    }
