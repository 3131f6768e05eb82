"""Reads claimed collections for a few seconds, then hands on to whoever comes next."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

import httpx
import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from engine.authority import Authority, RenewalUnderWayError
from engine.backfill.claim import SILENT_AT_MOST_S, TURN_AWAY, Claim, claim, hold, next_in_line, release
from engine.backfill.fetch import FetchError
from engine.backfill.outcome import hold_back_others, record_failure
from engine.backfill.pace import Pace
from engine.backfill.report import Report
from engine.backfill.steps import Steps
from engine.backfill.verdict import Failure
from engine.changes.rhythm import Rhythm, rest_s
from engine.health import TroubleCode
from engine.oauth_apps import OAuthClient
from engine.providers.catalogue import Catalogue
from engine.sealing import Safe
from engine.transactions import retrying
from foundation.database import Database, utc_now
from foundation.leases import Leases
from foundation.logs import place_of

SLICE_S: Final = 3.0
MOMENT_S: Final = 0.02
"""So short a wait costs a thread less than giving the reading back."""
SOON_S: Final = 10.0
"""A longer wait is left to `due_at` and the sweep, who may be a second late."""
BROKEN_PACE_S: Final = 2.0
RENEWAL_S: Final = 1.0
"""What has kept other workers from a token for seconds does not end the moment they stop waiting."""
BEDS: Final = 4

DATABASE_ERRORS: Final = (OperationalError, InterfaceError, PoolTimeoutError)
"""The database is away: no collection's trouble, and nowhere to note one."""

Told: TypeAlias = Mapping[UUID, float]
"""Which readings have more to do soon, and in how many seconds."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reader:
    """One per worker process; its threads share it."""

    database: Database
    safe: Safe
    catalogue: Catalogue
    pace: Pace
    client: httpx.Client
    stopping: threading.Event = field(default_factory=threading.Event)
    slice_s: float = SLICE_S
    own_apps: Mapping[str, OAuthClient] = field(default_factory=dict)
    rhythm: Rhythm = field(default_factory=Rhythm)
    leases: Leases[UUID] = field(default_factory=lambda: Leases(SILENT_AT_MOST_S))
    beds: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(BEDS))
    """How many threads may sleep until a rate limit lets them go on, while others wait for a thread."""
    is_crowded: Callable[[], bool] = lambda: False
    """Whether what is not done is left to the sweep, however soon it is due."""

    def read(self, progress_ids: Sequence[UUID], report: Report | None = None) -> Told:
        """Read what can be read in one slice; says who is to be told to go on. Fills the report."""
        report = Report() if report is None else report
        over_at = time.monotonic() + self.slice_s
        unfinished = dict[UUID, float]()
        for progress_id in progress_ids:
            is_over = self.stopping.is_set() or time.monotonic() > over_at
            unfinished |= (
                self._put_off(progress_id) if is_over else self._try_to_read(progress_id, over_at, report)
            )
        return unfinished

    def _put_off(self, progress_id: UUID) -> Told:
        """One that there was no time for."""
        return {} if self.is_crowded() else {progress_id: 0.0}

    def _try_to_read(self, progress_id: UUID, over_at: float, report: Report) -> Told:
        """A reading that cannot be taken or given back costs no other one."""
        try:
            return self._read_one(progress_id, over_at, report)
        except Exception as exc:  # noqa: BLE001  # its lease runs out
            about = {"progress_id": str(progress_id), "error": type(exc).__name__, "at": place_of(exc)}
            log.error("reading.dropped", **about)  # noqa: TRY400  # the words may quote a secret
            return {}

    def _read_one(self, progress_id: UUID, over_at: float, report: Report) -> Told:
        taken = retrying(self.database, lambda session: claim(session, progress_id, utc_now()))
        if taken is None:
            return {}
        about = {"sync_id": str(taken.sync_id), "collection_id": taken.collection_id}
        with structlog.contextvars.bound_contextvars(**about), self.leases.holding(taken.fences):
            return self._read_pages(taken, over_at, report)

    def _read_pages(self, taken: Claim, over_at: float, report: Report) -> Told:
        going: Claim | None = taken
        may_renew = True
        try:
            steps = self._steps(taken, report)
            access = self.authority.access(taken.credential)
            while going is not None:
                taken = going
                if (later_s := self._wait(taken, over_at)) is not None:
                    return self._give_back(taken, later_s)
                try:
                    going = steps.step(taken, access)
                except FetchError as exc:
                    if not (exc.is_refusal and access.is_renewable and may_renew):
                        raise
                    may_renew = False
                    access = self.authority.access(taken.credential, instead_of=access)
                else:
                    self.leases.hold(taken.fences)
                    if (ahead_s := access.allowance.rest_s) > 0:
                        self._rest_ahead(taken, ahead_s)
                        return {}
                    if going is not None and (rest := self._rest(going, over_at)) > 0:
                        return self._give_back(going, rest)
        except RenewalUnderWayError:
            return self._give_back(taken, RENEWAL_S)
        except FetchError as exc:
            self._fail(taken, exc.failure, report)
        except RedisError as exc:  # then a message would not arrive either
            log.warning("pace.unavailable", error=type(exc).__name__)
            return self._give_back(taken, BROKEN_PACE_S, soon_s=0.0)
        except DATABASE_ERRORS:
            raise
        except Exception as exc:  # noqa: BLE001  # a mistake of ours, met by this very page
            self._fail(taken, mistaken(taken, exc), report)
        return {}

    def _steps(self, taken: Claim, report: Report) -> Steps:
        provider = self.catalogue[taken.provider].bound(taken.credential.kind, taken.credential.properties)
        return Steps(self.database, provider, self.client, self.pace, self.rhythm, report)

    @property
    def authority(self) -> Authority:
        return Authority(self.database, self.safe, self.catalogue, self.client, self.own_apps)

    def _rest(self, going: Claim, over_at: float) -> float:
        """Leave room to others after a page that nobody waits for; what is left of that is for later."""
        wait_s = rest_s(going.rate_limit) if going.is_unhurried else 0.0
        return 0.0 if self._sleep(wait_s, over_at) else wait_s

    def _wait(self, taken: Claim, over_at: float) -> float | None:
        """Nothing once the next step may be taken; otherwise how long the reading shall rest."""
        while not self.stopping.is_set() and time.monotonic() < over_at:
            wait_s = self._ask_pace(taken) if taken.needs_request else 0.0
            if wait_s == 0:
                return None
            if not self._sleep(wait_s, over_at):
                return wait_s
        return 0.0

    def _sleep(self, wait_s: float, over_at: float) -> bool:
        """Sleep in this thread, if that is but a moment, or if enough others stay awake to work."""
        if wait_s <= MOMENT_S:
            self.stopping.wait(wait_s)
            return True
        if time.monotonic() + wait_s > over_at or not self.beds.acquire(blocking=False):
            return False
        self.stopping.wait(wait_s)
        self.beds.release()
        return True

    def _ask_pace(self, taken: Claim) -> float:
        """Importing a credential asks the provider whose it is; that request has to count as well."""
        imported_s_ago = (utc_now() - taken.credential.updated_at).total_seconds()
        who = (taken.sync_id, taken.progress_id)
        return self.pace.wait_s(*who, taken.rate_limit, fence=taken.fence, earlier_s=imported_s_ago)

    def _fail(self, taken: Claim, failure: Failure, report: Report) -> None:
        report.note_failure(taken.collection_id, failure.code)
        log.warning("page.failed", code=failure.code, message=failure.message)
        retrying(self.database, lambda session: record_failure(session, taken, failure, utc_now()))

    def _rest_ahead(self, taken: Claim, rest_s: float) -> None:
        """The provider has no more for this account now: it would refuse whichever reading asks next."""
        log.info("provider.nearly_refused", rest_s=round(rest_s, 1))

        def work(session: Session) -> None:
            if (held := hold(session, taken)) is None:
                return  # whoever has it now hears it as well
            until = utc_now() + timedelta(seconds=rest_s)
            hold_back_others(session, taken, until)
            if held.progress.leased_until is not None:
                release(held, until)

        retrying(self.database, work)

    def _give_back(self, taken: Claim, later_s: float, soon_s: float = SOON_S) -> Told:
        """Make the reading due again; whoever of its sync has had to wait for that goes before it."""
        is_soon = later_s <= soon_s and not self.is_crowded()

        def work(session: Session) -> Told:
            held, now = hold(session, taken), utc_now()
            if held is None:
                return {}
            waiting = next_in_line(session, held, now)
            again_s = max(later_s, TURN_AWAY.total_seconds()) if waiting else later_s
            release(held, now + timedelta(seconds=again_s), hinted=is_soon)
            if not is_soon:
                return {}
            return (
                {taken.progress_id: again_s}
                if waiting is None
                else {waiting: 0.0, taken.progress_id: again_s}
            )

        return retrying(self.database, work)


def mistaken(taken: Claim, error: Exception) -> Failure:
    """The trouble that an error of our own is. Its words stay out: they may quote a secret."""
    name = type(error).__name__
    log.error("page.mistaken", error=name, at=place_of(error))
    return Failure(TroubleCode.COLLECTION_FAILED, f"The engine cannot read {taken.collection_id} ({name})")
