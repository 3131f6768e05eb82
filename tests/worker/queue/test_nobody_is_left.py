"""Nobody is left: whatever comes of a step, somebody looks at the connection again."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import chain, product
from typing import Any, Final

import pytest
from sqlmodel import Session, col, select

from foundation.database import Database
from models import Connection, Lane, State, Step, Tenant, Work
from models.lifecycle import WATCHED, WITH_SYNC
from tests.support.rows import LONG_AGO, NOW, a_connection, a_tenant, a_work
from worker.errors import ApiRejectedError, ApiUnavailableError, NotFoundError, PausedError, ProvisioningError
from worker.management import RemoteSync
from worker.policy import RetryPolicy
from worker.queue.claims import claim
from worker.queue.desired import apply_desired
from worker.queue.record import Onward, Result, record
from worker.queue.verdict import Claim, Verdict
from worker.queue.want import want_work
from worker.steps.failures import verdict_on_error
from worker.steps.feed import CALM
from worker.steps.judge import Paces, judge, judge_missing

POLICY = RetryPolicy(max_attempts=3, parked_pace=timedelta(minutes=15))
LEASE = timedelta(seconds=10)
LATER = NOW + timedelta(seconds=2)
Decide = Callable[[Claim, Paces], Verdict]


def on_error(error: ProvisioningError, claimed: Claim, _paces: Paces) -> Verdict:
    return verdict_on_error(claimed, error, POLICY, now=NOW, is_incident=False)


def succeed(claimed: Claim, _paces: Paces) -> Verdict:
    """What the steps say when they have done what they are for."""
    if claimed.step is Step.CAPTURE:
        facts: dict[str, object] = {"remote_credential_id": "c9", "sealed_credential": None}
        return Verdict("captured", "x", move=State.CAPTURED, facts=facts)
    if claimed.step is Step.CREATE:
        facts = {"remote_sync_id": "s9", "applied_revision": claimed.revision}
        return Verdict("created", "x", move=State.BACKFILLING, facts=facts, wait=timedelta(seconds=1))
    if claimed.step is Step.REMOVE:
        return Verdict("removed", "x", move=State.REMOVED, wait=None, facts={"remote_sync_id": None})
    if claimed.state is State.FAILED:
        return Verdict("unchanged", "x", wait=None, is_eventful=False)
    return Verdict("updated", "x", wait=None, facts={"applied_revision": claimed.revision})


def adopt(claimed: Claim, _paces: Paces) -> Verdict:
    """A sync that an earlier try has made, and that is to be brought up to date."""
    facts = {"remote_sync_id": "s9", "applied_revision": claimed.revision - 1}
    return Verdict("adopted", "x", move=State.BACKFILLING, facts=facts, wait=timedelta(seconds=1))


def switch(claimed: Claim, _paces: Paces) -> Verdict:
    """An update that pauses a sync, or resumes it."""
    target = State.BACKFILLING if claimed.state is State.PAUSED else State.PAUSED
    return Verdict("updated", "x", move=target, wait=None, facts={"applied_revision": claimed.revision})


def miss(claimed: Claim, paces: Paces) -> Verdict:
    return judge_missing(claimed, NotFoundError(404, "no such sync"), paces=paces)


def look(sync: RemoteSync, claimed: Claim, paces: Paces) -> Verdict:
    return judge(claimed, sync, now=NOW, paces=paces, policy=POLICY, is_incident=lambda _claim: False)


HEALTHS: Final[dict[str, Any]] = {
    "healthy": {"status": "healthy"},
    "initializing": {"status": "initializing"},
    "warning": {"status": "warning"},
    "error": {"status": "error"},
    "refused": {"status": "error", "reason": {"part": "credential", "message": "401"}},
}
COMPLETED: Final = {"backfilled": "2026-05-01T00:00:00Z", "not backfilled": None}
DISABLED: Final = ("disabled", "refused", "not backfilled")
LOOKS: Final[Mapping[str, Decide]] = {
    f"{status}, {health}, {completed}": partial(
        look,
        RemoteSync.model_validate(
            {
                "id": "s",
                "status": status,
                "health": HEALTHS[health],
                "initial_backfill_completed_at": COMPLETED[completed],
            }
        ),
    )
    for status, health, completed in [*product(["active"], HEALTHS, COMPLETED), DISABLED]
}
ERRORS: Final[Mapping[str, Decide]] = {
    "away": partial(on_error, ApiUnavailableError("no answer")),
    "put off": partial(on_error, PausedError("limited", retry_after_s=3)),
    "refused": partial(on_error, ApiRejectedError(422, "no")),
}
OUTCOMES: Final[dict[Step, Mapping[str, Decide]]] = {
    Step.CAPTURE: {"done": succeed, **ERRORS},
    Step.CREATE: {"done": succeed, "adopted": adopt, **ERRORS},
    Step.UPDATE: {"done": succeed, "switched": switch, **ERRORS},
    Step.REMOVE: {"done": succeed, **ERRORS},
    Step.POLL: {**LOOKS, "missing": miss, **ERRORS},
}
STATES: Final[dict[Step, tuple[State, ...]]] = {
    Step.CAPTURE: (State.REQUESTED,),
    Step.CREATE: (State.CAPTURED,),
    Step.UPDATE: tuple(sorted(WATCHED)),
    Step.REMOVE: (State.REMOVING,),
    Step.POLL: tuple(sorted(WATCHED)),
}
ROWS: Final[dict[str, dict[str, Any]]] = {
    "first": {"attempts": 0},
    "again": {"attempts": 9, "refused_at": LONG_AGO, "error_code": "api_rejected"},
}
"""What is known before: nothing bad, or a refusal that has lasted."""
EVENTS: Final[dict[str, dict[str, Any] | None]] = {
    "nothing": None,
    "another wish": {"overrides": {"max_age_days": 3}},
    "new credential": {"sealed_credential": "k.new"},
    "deleted": {"is_removed": True},
}
"""What an event changes while a worker does the step."""


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("is_followed", [False, True], ids=["polled", "followed"])
def test_somebody_looks_again(database: Database, step: Step, is_followed: bool) -> None:
    """After every outcome of every step something is due, or an event is awaited, or the feed will tell."""
    cases, rows = {}, []
    for case in product(STATES[step], ROWS, OUTCOMES[step], EVENTS, [False, True]):
        state, known, outcome, _, is_behind = case
        if is_possible(step, state, outcome, is_behind=is_behind):
            revisions = {"revision": 2, "applied_revision": 1 if is_behind else 2}
            tenant, row, *works = a_case(step, state, is_followed, **ROWS[known], **revisions)
            cases[row.id] = case
            rows.append(([tenant], [row], works))
    with database.write() as session:
        for kind in zip(*rows, strict=True):
            session.add_all(chain.from_iterable(kind))
            session.flush()
    paces = Paces(timedelta(minutes=5), timedelta(minutes=15), is_followed)

    with database.write() as session:
        held = claim(session, step, limit=len(cases), now=NOW, lease=LEASE, policy=POLICY).claims
    assert {each.connection_id for each in held} == set(cases)
    with database.write() as session:
        for each in held:
            happen(session, each, EVENTS[cases[each.connection_id][3]])
    results: list[Result] = [
        (each, OUTCOMES[step][cases[each.connection_id][2]](each, paces)) for each in held
    ]
    with database.write() as session:
        recorded = record(session, results, now=LATER, onward=Onward(Step.CREATE, LEASE))

    assert {verdict.did for _, verdict in recorded.results} & {"to retry: internal_error"} == set()
    with database.read() as session:
        left = [
            (cases[row.id], row.state)
            for row in forgotten(session, is_followed=is_followed)
            if row.id in cases
        ]
        unsent = [(cases[row.id], row.state) for row in behind(session) if row.id in cases]
    assert left == []
    assert unsent == []


def is_possible(step: Step, state: State, outcome: str, *, is_behind: bool) -> bool:
    """Nothing is updated that is up to date, and a failed connection's sync is not changed."""
    if step is not Step.UPDATE:
        return True
    return is_behind and (state is not State.FAILED or outcome == "done")


def a_case(
    step: Step, state: State, is_followed: bool, **known: Any
) -> tuple[Tenant, Connection, Work, *tuple[Work, ...]]:
    """A connection with all its rows; the feed alone watches the calm ones that are not claimed here."""
    attempts = known.pop("attempts")
    tenant = a_tenant()
    row = a_connection(tenant, state=state, **{"remote_sync_id": "s"} if state in WATCHED else {}, **known)
    lifecycle = a_work(row, attempts=attempts)
    if step is Step.UPDATE and is_told(row, is_followed=is_followed):
        lifecycle.due_at = lifecycle.turn_at = None
    if step is Step.UPDATE or (row.is_outdated and state in WITH_SYNC):
        return tenant, row, lifecycle, a_work(row, lane=Lane.CHANGES, attempts=attempts)
    return tenant, row, lifecycle


def happen(session: Session, held: Claim, change: dict[str, Any] | None) -> None:
    """What the intake does to the rows while a worker holds them."""
    if change is None:
        return
    tenant, row = session.get_one(Tenant, held.tenant_id), session.get_one(Connection, held.connection_id)
    if change.get("is_removed"):
        tenant.is_removed, tenant.clock = True, {"presence": "2026-05-04"}
    for name in set(change) - {"is_removed"}:
        setattr(row, name, change[name])
    row.revision += 1
    apply_desired(tenant, row, credential_given="sealed_credential" in change)
    session.flush()
    want_work(session, [row], now=NOW)


def forgotten(session: Session, *, is_followed: bool) -> Iterator[Connection]:
    """Connections that nobody looks at, and that wait for no event either."""
    for row, _ in rows_without(session, Lane.LIFECYCLE):
        if row.next_step is not None and not is_told(row, is_followed=is_followed):
            yield row


def is_told(row: Connection, *, is_followed: bool) -> bool:
    """Whether the feed alone watches this connection."""
    return is_followed and row.state in CALM and row.error_code is None


def behind(session: Session) -> Iterator[Connection]:
    """Connections whose sync lacks a wanted change that nobody will send."""
    for row, _ in rows_without(session, Lane.CHANGES):
        if row.state in WITH_SYNC and row.is_outdated:
            yield row


def rows_without(session: Session, lane: Lane) -> Iterator[tuple[Connection, Work | None]]:
    """Connections for which nothing in this lane is due."""
    work = (col(Work.connection_id) == col(Connection.id)) & (col(Work.lane) == lane)
    for row, mine in session.exec(select(Connection, Work).outerjoin(Work, work)):
        if mine is None or mine.due_at is None:
            yield row, mine
