"""Leases: kept alive while the work goes on, by a thread of their own, and let go one by one."""

import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from foundation.database import Database
from models import Lane, State, Step
from tests.support.rows import a_claim, a_connection, a_tenant, added, work_of
from worker.policy import RetryPolicy
from worker.queue import leases
from worker.queue.claims import claim
from worker.queue.leases import ClaimKeeper
from worker.queue.verdict import Claim, Key

WAIT_S = 10


class Renewals:
    """Records what is renewed; a test waits for the next one instead of sleeping."""

    def __init__(self) -> None:
        self.held: list[dict[Key, int]] = []
        self.renewed = threading.Semaphore(0)
        self.fails = False

    def __call__(self, _database: object, held: Mapping[Key, int], *, lease: timedelta) -> None:
        del lease
        self.held.append(dict(held))
        self.renewed.release()
        if self.fails:
            raise OperationalError("", {}, Exception())

    def next(self) -> dict[Key, int]:
        assert self.renewed.acquire(timeout=WAIT_S)
        return self.held[-1]


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Renewals:
    renewals = Renewals()
    monkeypatch.setattr(leases, "renew", renewals)
    return renewals


@pytest.fixture
def keeper(renewals: Renewals) -> Iterator[ClaimKeeper]:
    unused: Any = None
    keeper = ClaimKeeper(unused, timedelta(milliseconds=30))
    yield keeper
    keeper.close()


def claims(number: int) -> list[Claim]:
    return [a_claim(a_connection(a_tenant()), fence=n + 1) for n in range(number)]


def test_held_rows_are_renewed_until_the_end(keeper: ClaimKeeper, renewals: Renewals) -> None:
    """While a block holds claims, their leases are renewed again and again, under their fences."""
    held = claims(2)

    with keeper.holding(held):
        assert renewals.next() == {(c.connection_id, Lane.LIFECYCLE): c.fence for c in held}
        assert renewals.next()

    assert keeper.held() == {}


def test_released_row_is_renewed_no_more(keeper: ClaimKeeper, renewals: Renewals) -> None:
    """A row whose outcome is recorded is let go before the others."""
    done, going_on = claims(2)

    with keeper.holding([done, going_on]):
        keeper.release([done])
        renewals.next()
        assert renewals.next() == {going_on.key: going_on.fence}


def test_lanes_of_a_connection_are_held_apart(keeper: ClaimKeeper) -> None:
    """The end of a change does not let go of the poll of the same connection."""
    connection = a_connection(a_tenant(), state=State.READY)
    poll, change = (a_claim(connection, step=step) for step in (Step.POLL, Step.UPDATE))

    with keeper.holding([poll, change]):
        keeper.release([change])
        assert keeper.held() == {(connection.id, Lane.LIFECYCLE): poll.fence}


def test_newer_claim_of_the_same_row_stays(keeper: ClaimKeeper) -> None:
    """A block that ends lets go of its own claims only."""
    (old,) = claims(1)
    newer = a_claim(a_connection(a_tenant(), id=old.connection_id), fence=9)

    with keeper.holding([newer]):
        with keeper.holding([]):
            keeper.release([old])
        assert keeper.held() == {old.key: 9}


def test_block_that_raises_lets_go(keeper: ClaimKeeper) -> None:
    """After an error nothing is held: the leases run out and the rows are due again."""

    def fail() -> None:
        with keeper.holding(claims(1)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert keeper.held() == {}


def test_database_that_is_away_for_a_moment_ends_nothing(keeper: ClaimKeeper, renewals: Renewals) -> None:
    """A renewal that failed is tried again at the next turn."""
    renewals.fails = True

    with keeper.holding(claims(1)):
        renewals.next()
        assert renewals.next()


def test_lease_outlives_its_first_term(database: Database) -> None:
    """A step that takes longer than its lease keeps its row: the keeper renews it in the database."""
    lease = timedelta(seconds=0.3)
    connection = added(database)
    policy = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))

    def take() -> tuple[Claim, ...]:
        with database.write() as session:
            now = database.now(session)
            return tuple(claim(session, Step.CAPTURE, limit=1, now=now, lease=lease, policy=policy).claims)

    keeper = ClaimKeeper(database, lease)
    try:
        held = take()
        first = work_of(database, connection).leased_until
        with keeper.holding(held):
            while (until := work_of(database, connection).leased_until) == first:
                assert take() == ()
            assert until is not None
            assert first is not None
            assert until > first
    finally:
        keeper.close()
