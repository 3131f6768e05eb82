"""Turns: nobody starves however much is due, and no tenant delays another; nothing stands idle either."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from foundation.database import Database, new_id
from models import AttemptOutcome, Connection, State, Step, Tenant, Work
from tests.support.rows import LONG_AGO, NOW, a_connection, a_tenant, a_work, added, all_of
from worker.policy import RetryPolicy
from worker.queue import turns
from worker.queue.claims import claim
from worker.queue.record import record
from worker.queue.turns import SPACING, rows_ahead, turn_at
from worker.queue.verdict import Claim, Verdict
from worker.queue.want import want_work

POLICY = RetryPolicy(max_attempts=8, parked_pace=timedelta(minutes=15))
LEASE = timedelta(minutes=1)
FAILED_ONCE = Verdict("to retry", "away", outcome=AttemptOutcome.TRANSIENT)


def test_surplus_lies_apart() -> None:
    """The first row of a tenant has its turn at once, each further one a moment later."""
    assert [turn_at(NOW, ahead) - NOW for ahead in range(3)] == [timedelta(0), SPACING, 2 * SPACING]


def test_rows_ahead_are_the_due_ones_of_the_step(database: Database) -> None:
    """What is not due, held by a worker, of another step or of another tenant is not in the way."""
    tenant, other, stranger = a_tenant(), a_tenant(), a_tenant()
    with database.write() as session:
        session.add_all([tenant, other])
    for work in ({}, {}, {"due_at": NOW + timedelta(seconds=1)}, {"due_at": None}):
        added(database, tenant, work=work)
    added(database, tenant, state=State.CAPTURED)
    added(database, other)

    with database.read() as session:
        assert rows_ahead(session, [tenant.id], Step.CAPTURE, now=NOW) == {tenant.id: 2}
        assert rows_ahead(session, [stranger.id], Step.CAPTURE, now=NOW) == {stranger.id: 0}


def test_counting_rows_ahead_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event for a tenant with any number of due rows reads only so many of them."""
    monkeypatch.setattr(turns, "AHEAD_AT_MOST", 3)
    tenant = a_tenant()
    stock(database, [(tenant, 5)])

    with database.read() as session:
        assert rows_ahead(session, [tenant.id], Step.CAPTURE, now=NOW) == {tenant.id: 3}


def test_nobody_starves_under_overload(database: Database) -> None:
    """Half more is due each second than can be done: everyone waits about equally long.

    The ids are in the order of time. Rows taken by id, or by any order but their turn, would let the last
    hundred tenants wait for ever.
    """
    tenants, batches, size = 300, 32, 50  # four batches a second: 200 of 300 rows
    ids = stock(database, [(a_tenant(), 1) for _ in range(tenants)], state=State.READY, due_at=NOW)
    due = dict.fromkeys(ids, NOW)
    waits: dict[UUID, list[timedelta]] = defaultdict(list)
    now = NOW

    for _ in range(batches):
        claims = take(database, Step.POLL, size, now)
        assert len(claims) == size
        with database.write() as session:
            record(session, [(each, _again_in_a_second()) for each in claims], now=now)
        for each in claims:
            waits[each.connection_id].append(now - due[each.connection_id])
            due[each.connection_id] = now + timedelta(seconds=1)
        now += timedelta(milliseconds=250)

    longest = [max([*waits[each], now - due[each]]) for each in ids]
    assert max(longest) <= 3 * statistics.median(wait for each in waits.values() for wait in each)
    assert len(waits) == tenants


def test_big_tenant_delays_nobody(database: Database) -> None:
    """One tenant with five thousand due rows, then two hundred small ones: those are in the first batches."""
    big = a_tenant()
    small = [a_tenant() for _ in range(200)]
    want_all(database, [(big, 5_000)])
    ones = want_all(database, [(tenant, 1) for tenant in small], now=NOW + timedelta(milliseconds=1))
    now = NOW + timedelta(milliseconds=2)

    batches = [take(database, Step.CAPTURE, 50, now) for _ in range(6)]

    first = {each.connection_id for each in batches[0] + batches[1] + batches[2] + batches[3] + batches[4]}
    assert set(ones) <= first
    others = [each for batch in batches for each in batch if each.tenant_id == big.id]
    assert all(len(batch) == 50 for batch in batches)
    assert len(others) == 6 * 50 - 200  # the big tenant gets all that the others leave


def test_big_tenant_alone_gets_everything(database: Database) -> None:
    """Where nobody else waits, a tenant's surplus is done as fast as it can be."""
    want_all(database, [(a_tenant(), 400)])

    taken = [len(take(database, Step.CAPTURE, 100, NOW)) for _ in range(5)]

    assert taken == [100, 100, 100, 100, 0]


def test_later_rows_of_small_tenants_pass_a_standing_surplus(database: Database) -> None:
    """However long the big tenant's surplus has been waiting, a row that comes later has its turn at once."""
    big = a_tenant()
    want_all(database, [(big, 1_000)])
    now = NOW + timedelta(seconds=5)
    late = want_all(database, [(a_tenant(), 1) for _ in range(20)], now=now)

    claims = take(database, Step.CAPTURE, 50, now)

    assert set(late) <= {each.connection_id for each in claims}


def test_rows_that_fail_together_take_turns(database: Database) -> None:
    """A big tenant's failures lie apart again, so who signs up meanwhile has a turn before them."""
    want_all(database, [(a_tenant(), 200)])
    failed = take(database, Step.CAPTURE, 200, NOW)
    with database.write() as session:
        record(session, [(each, FAILED_ONCE) for each in failed], now=NOW)
    now = NOW + timedelta(seconds=1)
    late = want_all(database, [(a_tenant(), 1) for _ in range(20)], now=now)

    claims = take(database, Step.CAPTURE, 50, now)

    assert set(late) <= {each.connection_id for each in claims}
    assert len(claims) == 50


def test_polls_of_a_tenant_keep_their_own_time(database: Database) -> None:
    """One request reads many of a tenant's syncs, so they are not drawn apart."""
    stock(database, [(a_tenant(), 3)], state=State.READY)

    claims = take(database, Step.POLL, 3, NOW)
    with database.write() as session:
        record(session, [(each, _again_in_a_second()) for each in claims], now=NOW)

    assert {each.turn_at for each in all_of(database, Work)} == {NOW + timedelta(seconds=1)}


def test_surplus_is_never_forgotten(database: Database) -> None:
    """Small tenants that never stop coming do not starve the big one: it keeps one row for each spacing."""
    big = a_tenant()
    want_all(database, [(big, 100)])
    done, now = 0, NOW

    for _ in range(20):
        want_all(database, [(a_tenant(), 1) for _ in range(12)], now=now)
        claims = take(database, Step.CAPTURE, 10, now)  # fewer than come
        done += sum(each.tenant_id == big.id for each in claims)
        now += SPACING

    assert done >= 10


def take(database: Database, step: Step, size: int, now: datetime) -> list[Claim]:
    with database.write() as session:
        return list(claim(session, step, limit=size, now=now, lease=LEASE, policy=POLICY).claims)


def _again_in_a_second() -> Verdict:
    return Verdict("looked at", "still ready", wait=timedelta(seconds=1), is_eventful=False)


def stock(
    database: Database, tenants: Iterable[tuple[Tenant, int]], *, due_at: datetime = LONG_AGO, **columns: Any
) -> list[UUID]:
    """Connections and work of these tenants, so many of each, all due at one moment; returns the ids."""
    rows = _connections(tenants, **columns)
    with database.write() as session:
        session.add_all([tenant for tenant, _ in rows])
        session.flush()
        session.add_all([connection for _, some in rows for connection in some])
        session.flush()
        session.add_all([a_work(connection, due_at=due_at) for _, some in rows for connection in some])
    return [connection.id for _, some in rows for connection in some]


def want_all(database: Database, tenants: Iterable[tuple[Tenant, int]], *, now: datetime = NOW) -> list[UUID]:
    """The same by the way that events take: the queue itself gives out the turns."""
    rows = _connections(tenants)
    connections = [connection for _, some in rows for connection in some]
    new = {connection.id for connection in connections}
    with database.write() as session:
        session.add_all([tenant for tenant, _ in rows])
        session.flush()
        session.add_all(connections)
        session.flush()
        want_work(session, connections, new=new, new_tenants={tenant.id for tenant, _ in rows}, now=now)
    return [connection.id for connection in connections]


def _connections(
    tenants: Iterable[tuple[Tenant, int]], **columns: Any
) -> Sequence[tuple[Tenant, list[Connection]]]:
    return [
        (tenant, [a_connection(tenant, id=new_id(), **columns) for _ in range(count)])
        for tenant, count in tenants
    ]
