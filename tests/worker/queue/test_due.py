"""What is due: all of it, once, and fairly."""

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from worker.rows.due import PER_SWEEP, PER_TENANT, DueRows, take_due

from foundation.database import Database
from models import State, Step
from models.lifecycle import next_step
from tests.support.rows import NOW, a_connection, a_tenant, added, stored

HINT = timedelta(seconds=5)
PAST = NOW - timedelta(seconds=1)
SOON = NOW + timedelta(seconds=1)


def due(database: Database, steps: Any = Step, now: Any = NOW) -> DueRows:
    with database.write() as session:
        return take_due(session, now=now, hint_for=HINT, steps=steps)


@pytest.mark.parametrize(("state", "outdated"), list(itertools.product(State, [False, True])))
def test_due_row_is_offered_under_its_step(database: Database, state: State, outdated: bool) -> None:
    """Each state's row comes under the step it asks for; one that asks for none is no longer due."""
    connection = added(database, state=state, revision=2, applied_revision=1 if outdated else 2)
    step = next_step(state, is_outdated=outdated)

    assert due(database) == ({step: [connection.id]} if step else {})

    row = stored(database, connection)
    assert (row.hinted_until, row.due_at is None) == (NOW + HINT if step else None, step is None)


LEFT: dict[str, dict[str, Any]] = {
    "not due": {"due_at": SOON},
    "never due": {"due_at": None},
    "leased": {"leased_until": SOON},
    "hinted": {"hinted_until": SOON},
}


@pytest.mark.parametrize("columns", LEFT.values(), ids=LEFT.keys())
def test_row_that_is_cared_for_is_left(database: Database, columns: dict[str, Any]) -> None:
    """What is not due, held by a worker or has a message under way is not offered."""
    added(database, **columns)

    assert due(database) == {}


@pytest.mark.parametrize("columns", [{"leased_until": PAST}, {"hinted_until": PAST}])
def test_row_that_was_forgotten_is_offered(database: Database, columns: dict[str, Any]) -> None:
    """A killed worker and a lost message cost a moment, no more."""
    connection = added(database, **columns)

    assert due(database) == {Step.CAPTURE: [connection.id]}


def test_row_is_offered_once_until_its_hint_is_old(database: Database) -> None:
    """A second sweep does not offer it again, until the message must be taken for lost."""
    connection = added(database)
    due(database)

    assert due(database) == {}
    assert due(database, now=NOW + HINT) == {Step.CAPTURE: [connection.id]}


def test_big_tenant_delays_nobody(database: Database) -> None:
    """One tenant with a thousand due rows and fifty with one: all fifty are in the first sweep."""
    big = a_tenant()
    small = [a_tenant() for _ in range(50)]
    with database.write() as session:
        session.add_all([big, *small])
        session.flush()
        longest = NOW - timedelta(hours=1)
        session.add_all([a_connection(big, due_at=longest) for _ in range(1000)])
        ones = [a_connection(tenant, due_at=PAST) for tenant in small]
        session.add_all(ones)

    offered = due(database)[Step.CAPTURE]

    assert {one.id for one in ones} < set(offered)
    assert len(offered) == 50 + PER_TENANT


def test_sweep_is_bounded(database: Database) -> None:
    """A sweep offers no more than so many rows, however many are due; the next ones offer the rest."""
    tenants = [a_tenant() for _ in range(PER_SWEEP // PER_TENANT + 2)]
    with database.write() as session:
        session.add_all(tenants)
        session.flush()
        session.add_all([a_connection(tenant) for tenant in tenants for _ in range(PER_TENANT)])

    first, second, third = (len(due(database).get(Step.CAPTURE, [])) for _ in range(3))

    assert (first, second, third) == (PER_SWEEP, 2 * PER_TENANT, 0)


def test_full_queue_keeps_others_from_nothing(database: Database) -> None:
    """More due polls than a sweep can offer, in a queue without room, do not hide what else is due."""
    tenants = [a_tenant() for _ in range(PER_SWEEP // PER_TENANT + 1)]
    with database.write() as session:
        session.add_all(tenants)
        session.flush()
        polls = [a_connection(each, state=State.READY) for each in tenants for _ in range(PER_TENANT)]
        session.add_all(polls)
        waiting = a_connection(tenants[0], due_at=PAST)
        session.add(waiting)

    assert due(database, steps=set(Step) - {Step.POLL}) == {Step.CAPTURE: [waiting.id]}
    assert stored(database, polls[0]).hinted_until is None


def test_no_room_anywhere_offers_nothing(database: Database) -> None:
    """When every queue is full the rows stay as they are."""
    connection = added(database)

    assert due(database, steps=()) == {}
    assert stored(database, connection).hinted_until is None


def test_sweeps_at_once_share_the_rows(database: Database) -> None:
    """Any number of sweeps may run together: each row is offered by one of them."""
    with database.write() as session:
        tenants = [a_tenant() for _ in range(20)]
        session.add_all(tenants)
        session.flush()
        session.add_all([a_connection(tenant) for tenant in tenants for _ in range(5)])

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: due(database).get(Step.CAPTURE, []), range(8)))

    times = Counter(each for offered in found for each in offered)
    assert len(times) == 100
    assert set(times.values()) == {1}
