"""Leases: kept alive while the work goes on, by a thread of their own, and let go one by one."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from worker.rows import leases
from worker.rows.leases import LeaseKeeper
from worker.steps.verdict import Claim

from tests.support.rows import a_claim, a_connection, a_tenant

WAIT_S = 10


class Renewals:
    """Records what is renewed; a test waits for the next one instead of sleeping."""

    def __init__(self) -> None:
        self.held: list[dict[UUID, int]] = []
        self.renewed = threading.Semaphore(0)
        self.fails = False

    def __call__(self, _database: object, held: dict[UUID, int], *, until: datetime) -> None:
        del until
        self.held.append(held)
        self.renewed.release()
        if self.fails:
            raise OperationalError("", {}, Exception())

    def next(self) -> dict[UUID, int]:
        assert self.renewed.acquire(timeout=WAIT_S)
        return self.held[-1]


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Renewals:
    renewals = Renewals()
    monkeypatch.setattr(leases, "renew", renewals)
    return renewals


@pytest.fixture
def keeper(renewals: Renewals) -> Iterator[LeaseKeeper]:
    unused: Any = None
    keeper = LeaseKeeper(unused, timedelta(milliseconds=30))
    yield keeper
    keeper.close()


def claims(number: int) -> list[Claim]:
    return [a_claim(a_connection(a_tenant(), fence=n + 1)) for n in range(number)]


def test_held_rows_are_renewed_until_the_end(keeper: LeaseKeeper, renewals: Renewals) -> None:
    """While a block holds claims, their leases are renewed again and again, under their fences."""
    held = claims(2)

    with keeper.holding(held):
        assert renewals.next() == {c.connection.id: c.connection.fence for c in held}
        assert renewals.next()

    assert keeper.held() == {}


def test_released_row_is_renewed_no_more(keeper: LeaseKeeper, renewals: Renewals) -> None:
    """A row whose outcome is recorded is let go before the others."""
    done, going_on = claims(2)

    with keeper.holding([done, going_on]):
        keeper.release([done])
        renewals.next()
        assert renewals.next() == {going_on.connection.id: going_on.connection.fence}


def test_newer_claim_of_the_same_row_stays(keeper: LeaseKeeper) -> None:
    """A block that ends lets go of its own claims only."""
    (old,) = claims(1)
    newer = a_claim(a_connection(a_tenant(), id=old.connection.id, fence=9))

    with keeper.holding([newer]):
        with keeper.holding([]):
            keeper.release([old])
        assert keeper.held() == {old.connection.id: 9}


def test_block_that_raises_lets_go(keeper: LeaseKeeper) -> None:
    """After an error nothing is held: the leases run out and the rows are due again."""

    def fail() -> None:
        with keeper.holding(claims(1)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert keeper.held() == {}


def test_database_that_is_away_for_a_moment_ends_nothing(keeper: LeaseKeeper, renewals: Renewals) -> None:
    """A renewal that failed is tried again at the next turn."""
    renewals.fails = True

    with keeper.holding(claims(1)):
        renewals.next()
        assert renewals.next()
