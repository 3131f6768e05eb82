"""After an outage nobody waits at the slow pace; one customer's trouble is no outage."""

from datetime import timedelta

from foundation.database import Database
from models import Connection, State
from tests.support.rows import NOW, a_tenant, add, added, stored
from worker.errors import ApiRejectedError, ApiUnavailableError
from worker.outage import FAILURES_OF_AN_OUTAGE, Outage, wake_parked

LATER = NOW + timedelta(minutes=15)
AWAY = ApiUnavailableError("no answer")


def test_success_after_many_failures_ends_an_outage_once() -> None:
    """The first success says that it is over, the next one says nothing."""
    outage = Outage()
    for _ in range(FAILURES_OF_AN_OUTAGE):
        outage.failed(AWAY)

    assert [outage.is_over(), outage.is_over()] == [True, False]


def test_failures_between_successes_are_no_outage() -> None:
    """One connection that keeps failing while others succeed never wakes anybody."""
    outage = Outage()

    ends = []
    for _ in range(10 * FAILURES_OF_AN_OUTAGE):
        outage.failed(AWAY)
        ends.append(outage.is_over())

    assert not any(ends)


def test_refusals_are_no_outage() -> None:
    """An API that refuses a customer answers."""
    outage = Outage()
    for _ in range(FAILURES_OF_AN_OUTAGE):
        outage.failed(ApiRejectedError(422, "no"))

    assert not outage.is_over()


def test_only_what_the_outage_put_off_is_woken(database: Database) -> None:
    """A connection that waits for another reason goes on waiting."""
    tenant = a_tenant()
    add(database, tenant)
    codes = ("api_unavailable", "api_token_rejected", "worker_died", None)
    rows: list[Connection] = [
        added(database, tenant, state=State.CAPTURED, due_at=LATER, hinted_until=LATER, error_code=code)
        for code in codes
    ]

    with database.write() as session:
        woken = wake_parked(session, now=NOW)

    assert woken == 2
    assert [stored(database, row).due_at for row in rows] == [NOW, NOW, LATER, LATER]
