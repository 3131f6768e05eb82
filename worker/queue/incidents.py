"""Incidents: a provider that refuses many tenants at once has trouble of its own.

Only connections that have been ready before count: wrong keys of new customers are no incident, however
many customers sign up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlmodel import Session, col

from models import Connection
from worker.policy import INCIDENT_LASTS, INCIDENT_TENANTS, INCIDENT_WINDOW, RetryPolicy
from worker.queue.verdict import Claim

WORKED_BEFORE: Final = col(Connection.ready_at).is_not(None)


@dataclass(frozen=True, slots=True)
class Incident:
    """One cause, many tenants."""

    provider: str
    code: str
    tenants: int
    since: datetime


def in_incident(
    session: Session, claims: Iterable[Claim], policy: RetryPolicy, *, now: datetime
) -> set[UUID]:
    """The connections whose refusal has lasted, but is one of many that began at about the same time."""
    found: set[UUID] = set()
    known: dict[tuple[str, str | None, datetime], bool] = {}  # refusals of one batch share their moment
    for claim in claims:
        since = claim.refused_at
        if since is None or now - since > INCIDENT_LASTS:
            continue
        if not policy.is_lasting(refusals=claim.attempts, since=since, now=now):
            continue
        moment = (claim.provider, claim.error_code, since)
        if moment not in known:
            known[moment] = _are_many_refused(session, *moment)
        if known[moment]:
            found.add(claim.connection_id)
    return found


def incidents(session: Session) -> Sequence[Incident]:
    """What many tenants of one provider suffer from now, the widest first."""
    tenants = func.count(col(Connection.tenant_id).distinct())
    grouped = (
        select(
            col(Connection.provider),
            col(Connection.error_code),
            tenants,
            func.min(col(Connection.refused_at)),
        )
        .where(
            col(Connection.refused_at).is_not(None), col(Connection.error_code).is_not(None), WORKED_BEFORE
        )
        .group_by(col(Connection.provider), col(Connection.error_code))
        .having(tenants >= INCIDENT_TENANTS)
        .order_by(tenants.desc())
    )
    return [Incident(*row) for row in session.execute(grouped)]


def _are_many_refused(session: Session, provider: str, code: str | None, at: datetime) -> bool:
    """Whether enough tenants of this provider have been refused since about this moment."""
    nearby = (
        select(col(Connection.tenant_id))
        .where(
            col(Connection.provider) == provider,
            col(Connection.error_code) == code,
            WORKED_BEFORE,
            col(Connection.refused_at).between(at - INCIDENT_WINDOW, at + INCIDENT_WINDOW),
        )
        .distinct()
        .limit(INCIDENT_TENANTS)
    )
    return len(session.execute(nearby).all()) == INCIDENT_TENANTS
