"""The report of a run: what Flower shows, and what the queue is asked for."""

from datetime import timedelta

from models import AttemptOutcome, State
from tests.support.rows import a_claim, a_connection, a_tenant
from worker.queue.verdict import Claim, Problem, Verdict
from worker.steps.report import Report

REFUSED = Problem("api_rejected", "no: sk_test_secret", "advice.")


def a_row(external_id: str = "org_1") -> Claim:
    tenant = a_tenant(external_id=external_id)
    return a_claim(a_connection(tenant), tenant)


def failed(_number: int = 0) -> Verdict:
    return Verdict(
        did="failed: api_rejected",
        why="x",
        move=State.FAILED,
        problem=REFUSED,
        outcome=AttemptOutcome.PERMANENT,
    )


def to_retry(seconds: float) -> Verdict:
    return Verdict(
        did="to retry: api_unavailable",
        why="x",
        wait=timedelta(seconds=seconds),
        outcome=AttemptOutcome.TRANSIENT,
    )


def test_summary_counts_what_was_done() -> None:
    """The most frequent comes first; an empty run says so."""
    report = Report()
    report.add([(a_row(), Verdict(did="created", why="x", move=State.BACKFILLING)) for _ in range(3)])
    report.add([(a_row(), to_retry(1))])

    assert report.summary == "3 created, 1 to retry: api_unavailable"
    assert Report().summary == "nothing was due"


def test_failures_are_named() -> None:
    """The first failures by tenant, provider and code, without what others wrote; the rest as a number."""
    report = Report()
    report.add([(a_row(f"org_{n}"), failed()) for n in range(5)])

    assert report.failures == (
        "org_0 stripe api_rejected; org_1 stripe api_rejected; org_2 stripe api_rejected and 2 more"
    )


def test_retry_waits_for_the_last() -> None:
    """The task comes back when the last of the rows that failed for the moment is due again."""
    report = Report()
    report.add([(a_row(), to_retry(2)), (a_row(), to_retry(1)), (a_row(), Verdict(did="x", why="x"))])

    assert report.retry_in == timedelta(seconds=2)


def test_moved_tenants_are_listed() -> None:
    """Only those that moved: the log line stays short."""
    report = Report()
    report.add([(a_row("a"), Verdict(did="x", why="x", move=State.READY)), (a_row("b"), to_retry(1))])

    assert report.moved == ["a"]
