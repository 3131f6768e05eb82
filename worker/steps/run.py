"""Running a step for many connections at once: claim, call, record; no transaction is open in between."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlmodel import Session

from models import Step
from models.lifecycle import WITH_SYNC
from worker.errors import (
    InternalError,
    NotFoundError,
    PausedError,
    ProvisioningError,
    RateLimitedError,
)
from worker.management.context import CallTally, on_behalf_of
from worker.queue.claims import Batch, claim, note_intent
from worker.queue.incidents import in_incident
from worker.queue.record import Onward, Recorded, Result, record
from worker.queue.verdict import Claim, Verdict
from worker.retry import jittered
from worker.runtime import Runtime
from worker.steps import poll, shared
from worker.steps.capture import capture
from worker.steps.collector import Collector, Emit, Job
from worker.steps.create import Creating, create, facts_after_error
from worker.steps.failures import verdict_on_error
from worker.steps.feed import CALM, is_listing, is_live
from worker.steps.judge import judge, judge_missing
from worker.steps.remove import remove
from worker.steps.report import Report
from worker.steps.trouble import API_TROUBLE, tell_limits
from worker.steps.update import update

log = structlog.get_logger()

BATCH: Final = {Step.POLL: 1_000}
BATCH_OF_CALLS: Final = 50
CALLS_PER_ROW: Final = {Step.CAPTURE: 2, Step.UPDATE: 2, Step.REMOVE: 4, Step.CREATE: 1}
CALLS_OF_A_ROW: Final = max(CALLS_PER_ROW.values())
"""However few calls are allowed, a row that was begun may be finished; the limit is told of them."""
CALLS_OF_POLL: Final = 200
WHILE_LISTING: Final = timedelta(minutes=1)
NAMED_IN_LOG: Final = 100


def batch_size(step: Step) -> int:
    """How many connections one run takes at most."""
    return BATCH.get(step, BATCH_OF_CALLS)


def run_step(runtime: Runtime, step: Step, *, task_id: str | None = None) -> Report:
    """Do this step for the connections that are due for it, as many as one batch holds."""
    asked = CALLS_OF_POLL if step is Step.POLL else batch_size(step) * CALLS_PER_ROW[step]
    allowed = runtime.limits.reserve(asked)
    if not allowed.calls:
        return Report(Counter({f"wait of {allowed.wait_s:.1f} s for the API's limit": 1}))
    run = _Run(runtime, step, task_id)
    run.tally.budget = max(allowed.calls, CALLS_OF_A_ROW) if allowed.is_bounded else None
    try:
        return run.execute(_limit(step, allowed.calls, asked))
    finally:
        runtime.limits.give_back(allowed.calls - run.tally.calls)


def _limit(step: Step, calls: int, asked: int) -> int:
    """How many connections to claim for so many calls. One list answers for many polls."""
    if step is Step.POLL:
        return batch_size(step) if calls == asked else calls
    return max(calls // CALLS_PER_ROW[step], 1)


@dataclass
class _Run:
    """One batch on its way."""

    runtime: Runtime
    step: Step
    task_id: str | None
    report: Report = field(default_factory=Report)
    tally: CallTally = field(default_factory=CallTally)
    successes: int = 0
    failed_tenants: set[str] = field(default_factory=set)
    has_paused: bool = False
    incident: set[UUID] = field(default_factory=set)
    is_followed: bool = False
    is_listing: bool = False

    def execute(self, limit: int) -> Report:
        with self.runtime.database.write() as session:
            batch = self._claim(session, limit)
        self.report.is_full = batch.is_full
        if not batch.claims:
            return self.report
        self.tally.attempts = min(claimed.attempts for claimed in batch.claims)
        with (
            self.runtime.leases.holding(batch.claims),
            closing(Collector(self.runtime.loop)) as collector,
        ):
            collector.start(self._jobs(self.step, batch.claims))
            for results in collector.batches():
                onward = self._record(results)
                if onward:
                    collector.start(self._jobs(Step.CREATE, onward))
        tell_limits(self.runtime, successes=self.successes, failed_tenants=self.failed_tenants)
        moved = list(dict.fromkeys(self.report.moved))[:NAMED_IN_LOG]
        log.info("step.done", step=self.step, did=self.report.summary, external_ids=moved)
        return self.report

    def _claim(self, session: Session, limit: int) -> Batch:
        runtime = self.runtime
        now = runtime.database.now(session)
        batch = claim(
            session,
            self.step,
            limit=limit,
            now=now,
            lease=runtime.lease,
            policy=runtime.policy,
            task_id=self.task_id,
        )
        self.incident = in_incident(session, batch.claims, runtime.policy, now=now)
        if self.step is Step.POLL:
            self.is_followed, self.is_listing = is_live(session, now=now), is_listing(session)
        return batch

    def _record(self, results: Sequence[Result]) -> list[Claim]:
        """Record what has come in; returns the claims that go on to create their sync."""
        runtime = self.runtime
        self._pause()
        with runtime.database.write() as session:
            checked = self._still_watched(session, shared.hold_back_released(session, results))
            onward = Onward(Step.CREATE, runtime.lease) if not self.has_paused else None
            recorded = record(session, checked, now=runtime.database.now(session), onward=onward)
        self._release(results, recorded)
        self.report.add(recorded.results)
        for claimed, verdict in recorded.results:
            _log_failure(claimed, verdict)
        return recorded.onward

    def _still_watched(self, session: Session, results: Sequence[Result]) -> Sequence[Result]:
        """Give each sync a next look if the feed, which was to tell of changes, was lost meanwhile."""
        if not self.is_followed or is_live(session, now=self.runtime.database.now(session)):
            return results
        self.is_followed = False
        pace = jittered(self.runtime.health_pace)
        return [
            (claimed, replace(verdict, wait=pace) if verdict.wait is None else verdict)
            for claimed, verdict in results
        ]

    def _release(self, results: Sequence[Result], recorded: Recorded) -> None:
        kept = {claimed.key for claimed in recorded.onward}
        self.runtime.leases.release([claimed for claimed, _ in results if claimed.key not in kept])

    def _pause(self) -> None:
        """Pause all workers if the API said so; not in the event loop, which must never wait for Redis."""
        if self.tally.paused_for_s is not None and not self.has_paused:
            self.has_paused = True
            self.runtime.limits.pause(timedelta(seconds=self.tally.paused_for_s))

    def _jobs(self, step: Step, claims: Sequence[Claim]) -> list[Job]:
        if step is Step.POLL:
            return [partial(self._poll_all, claims)]
        return [partial(self._call_one, claimed) for claimed in claims]

    async def _call_one(self, claimed: Claim, emit: Emit) -> None:
        """One call; what the outside world does wrong becomes a verdict."""
        with on_behalf_of(self.tally, claimed.correlation_id):
            try:
                verdict = await _CALLS[claimed.step](self, claimed)
                self.successes += 1
            except ProvisioningError as exc:
                verdict = self._on_error(claimed, exc)
            except Exception as exc:  # noqa: BLE001  # a mistake of ours must cost no other row anything
                verdict = self._on_mistake(claimed, exc)
        emit([(claimed, verdict)])

    async def _poll_all(self, claims: Sequence[Claim], emit: Emit) -> None:
        """Read all syncs together and judge each; answers are recorded as they arrive."""
        claims, calm = self._told_by_the_feed(claims)
        if calm:
            emit(calm)
        unanswered = {claimed.key: claimed for claimed in claims}
        with on_behalf_of(self.tally):
            try:
                async for answers in poll.read_syncs(claims, self.runtime.sizes, self.runtime.api):
                    for claimed, _ in answers:
                        del unanswered[claimed.key]
                    emit([(claimed, self._judged(claimed, read)) for claimed, read in answers])
            except Exception as exc:  # noqa: BLE001  # as above; what was answered before stays recorded
                emit([(claimed, self._on_mistake(claimed, exc)) for claimed in unanswered.values()])

    def _told_by_the_feed(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[Result]]:
        """Those to be read, and quiet verdicts of calm ones that the feed's listing is about to meet.

        The listing itself ends their polls. What it did not meet is read once it is over.
        """
        if not self.is_listing:
            return list(claims), []
        wait = jittered(WHILE_LISTING)
        quiet = Verdict(did="left to the feed", why="quiet", wait=wait, is_eventful=False)
        calm = [(c, quiet) for c in claims if c.state in CALM and c.error_code is None]
        return [c for c in claims if c.state not in CALM or c.error_code is not None], calm

    def _judged(self, claimed: Claim, read: poll.Read) -> Verdict:
        paces = self.runtime.paces(is_followed=self.is_followed)
        try:
            if isinstance(read, NotFoundError):
                self.successes += 1
                return judge_missing(claimed, read, paces=paces)
            if isinstance(read, ProvisioningError):
                return self._on_error(claimed, read)
            self.successes += 1
            return judge(
                claimed,
                read,
                now=claimed.started_at,  # when it was seen whether there is an incident
                paces=paces,
                policy=self.runtime.policy,
                is_incident=self._is_incident,
            )
        except Exception as exc:  # noqa: BLE001  # a mistake of ours must cost no other row anything
            return self._on_mistake(claimed, exc)

    def _is_incident(self, claimed: Claim) -> bool:
        return claimed.connection_id in self.incident

    def _on_mistake(self, claimed: Claim, exc: Exception) -> Verdict:
        log.error("step.broken", exc_info=exc, **_context(claimed))
        return self._on_error(claimed, InternalError(type(exc).__name__))

    def _on_error(self, claimed: Claim, error: ProvisioningError) -> Verdict:
        if isinstance(error, API_TROUBLE):
            self.failed_tenants.add(str(claimed.tenant_id))
        elif error.was_answered:
            self.successes += 1
        elif isinstance(error, RateLimitedError) and not isinstance(error, PausedError):
            self.tally.pause(error)
        verdict = verdict_on_error(
            claimed,
            error,
            self.runtime.policy,
            now=claimed.started_at,
            is_incident=self._is_incident(claimed),
        )
        if claimed.step is Step.CREATE:
            return replace(verdict, facts=facts_after_error(claimed, error))
        return verdict


def _context(claimed: Claim) -> dict[str, object]:
    return {
        "step": str(claimed.step),
        "external_id": claimed.external_id,
        "connection_id": str(claimed.connection_id),
        "tenant_id": str(claimed.tenant_id),
        "attempt": claimed.attempts,
        "correlation_id": claimed.correlation_id,
    }


def _log_failure(claimed: Claim, verdict: Verdict) -> None:
    if verdict.problem is not None and verdict.is_eventful:
        facts = _context(claimed) | {"why": verdict.why, "task_id": claimed.task_id}
        log.warning("step.failed", to=verdict.move, code=verdict.problem.code, **facts)


async def _capture(run: _Run, claimed: Claim) -> Verdict:
    return await capture(claimed, run.runtime.api, run.runtime.vault)


async def _create(run: _Run, claimed: Claim) -> Verdict:
    runtime = run.runtime

    async def intend(claimed: Claim) -> None:
        await asyncio.to_thread(note_intent, runtime.database, claimed)

    creating = Creating(runtime.api, runtime.plans, runtime.streams, runtime.settle, intend)
    return await create(claimed, creating)


async def _update(run: _Run, claimed: Claim) -> Verdict:
    if claimed.state not in WITH_SYNC or not claimed.is_outdated:
        return Verdict(did="unchanged", why="nothing to change", wait=None, is_eventful=False)
    return await update(claimed, run.runtime.api, run.runtime.plans)


async def _remove(run: _Run, claimed: Claim) -> Verdict:
    runtime = run.runtime

    async def release(credential_id: str) -> bool:
        return await asyncio.to_thread(shared.release, runtime.database, claimed, credential_id)

    return await remove(claimed, runtime.api, settle=runtime.settle, release=release)


_CALLS: Final[dict[Step, Callable[[_Run, Claim], Awaitable[Verdict]]]] = {
    Step.CAPTURE: _capture,
    Step.CREATE: _create,
    Step.UPDATE: _update,
    Step.REMOVE: _remove,
}
