"""Incidents: a provider that refuses many tenants at once has trouble of its own, and nobody fails for it."""

from datetime import timedelta
from typing import Any

import pytest

from foundation.database import Database
from models import Connection, State, Tenant
from tests.support.rows import LONG_AGO, NOW, a_claim, a_connection, a_tenant, a_work, add, added
from worker.policy import INCIDENT_LASTS, INCIDENT_TENANTS, INCIDENT_WINDOW, RetryPolicy
from worker.queue.incidents import Incident, in_incident, incidents

POLICY = RetryPolicy(max_attempts=8, parked_pace=timedelta(minutes=15))
SINCE = NOW - POLICY.refusal_lasts


def refused(database: Database, tenant: Tenant | None = None, **columns: Any) -> Connection:
    defaults = {
        "state": State.DEGRADED,
        "error_code": "credential_rejected",
        "refused_at": SINCE,
        "ready_at": LONG_AGO,
    }
    return added(database, tenant, **defaults | columns)


def found(database: Database, *rows: Connection, attempts: int = 3) -> set[Any]:
    with database.read() as session:
        claims = [a_claim(row, attempts=attempts) for row in rows]
        return in_incident(session, claims, POLICY, now=NOW)


def test_enough_tenants_at_once_are_an_incident(database: Database) -> None:
    """As many tenants as it takes: all of their connections are in it."""
    rows = [refused(database) for _ in range(INCIDENT_TENANTS)]

    assert found(database, *rows) == {row.id for row in rows}


def test_fewer_tenants_are_none(database: Database) -> None:
    """A few credentials may be bad at the same time."""
    rows = [refused(database) for _ in range(INCIDENT_TENANTS - 1)]

    assert found(database, *rows) == set()


def test_one_tenant_is_none_however_many_connections(database: Database) -> None:
    """One customer's credential that many connections use is one credential."""
    tenant = a_tenant()
    add(database, tenant)
    rows = [refused(database, tenant) for _ in range(2 * INCIDENT_TENANTS)]

    assert found(database, *rows) == set()


def test_big_tenant_hides_no_incident(database: Database) -> None:
    """However many connections of one tenant are refused, the other tenants are seen behind them."""
    big = a_tenant()
    rows = [
        a_connection(
            big,
            state=State.DEGRADED,
            error_code="credential_rejected",
            refused_at=SINCE - timedelta(seconds=1),
            ready_at=LONG_AGO,
        )
        for _ in range(1_100)
    ]
    with database.write() as session:
        session.add(big)
        session.flush()
        session.add_all(rows)
        session.flush()
        session.add_all([a_work(row) for row in rows])
    others = [refused(database) for _ in range(INCIDENT_TENANTS - 1)]

    assert found(database, *others) == {row.id for row in others}


APART: dict[str, dict[str, Any]] = {
    "another provider": {"provider": "hubspot"},
    "long before": {"refused_at": SINCE - INCIDENT_WINDOW - timedelta(seconds=1)},
    "not refused": {"refused_at": None},
    "another error": {"error_code": "api_rejected"},
    "never ready": {"ready_at": None},
}


@pytest.mark.parametrize("columns", APART.values(), ids=APART.keys())
def test_refusals_for_other_reasons_do_not_count(database: Database, columns: dict[str, Any]) -> None:
    """An incident is one provider's, and begins for everyone at about the same time."""
    row = refused(database)
    for _ in range(INCIDENT_TENANTS):
        refused(database, **columns)

    assert found(database, row) == set()


def test_incident_does_not_last_for_ever(database: Database) -> None:
    """After hours a refusal is a refusal: credentials that nobody renews fail in the end."""
    since = NOW - INCIDENT_LASTS - timedelta(seconds=1)
    rows = [refused(database, refused_at=since) for _ in range(INCIDENT_TENANTS)]

    assert found(database, *rows) == set()


@pytest.mark.parametrize(("attempts", "since"), [(2, SINCE), (3, SINCE + timedelta(seconds=1)), (3, None)])
def test_refusal_that_has_not_lasted_is_not_asked_about(
    database: Database, attempts: int, since: Any
) -> None:
    """Nothing hangs on it yet: the connection is tried again anyway."""
    for _ in range(INCIDENT_TENANTS):
        refused(database)
    row = refused(database, refused_at=since)

    assert found(database, row, attempts=attempts) == set()


def test_incidents_are_told_by_cause(database: Database) -> None:
    """Operators see the provider, the code, how many tenants, and since when: the widest first."""
    for n in range(INCIDENT_TENANTS + 1):
        refused(database, refused_at=SINCE + timedelta(seconds=n))
    for _ in range(INCIDENT_TENANTS):
        refused(database, provider="hubspot")
    refused(database, provider="linear")
    for _ in range(INCIDENT_TENANTS):
        refused(database, provider="github", state=State.REQUESTED, ready_at=None)

    with database.read() as session:
        told = incidents(session)

    assert told == [
        Incident("stripe", "credential_rejected", INCIDENT_TENANTS + 1, SINCE),
        Incident("hubspot", "credential_rejected", INCIDENT_TENANTS, SINCE),
    ]
