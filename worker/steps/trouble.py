"""Trouble of the Management API itself: what counts as such, and what happens when it ends."""

from collections.abc import Collection
from typing import Final

import structlog

from worker.errors import ApiTokenError, ApiUnavailableError, UnusableAnswerError
from worker.queue.schedule import WAKE_AT_ONCE, wake_parked
from worker.runtime import Runtime

log = structlog.get_logger()

API_TROUBLE: Final = (ApiUnavailableError, ApiTokenError, UnusableAnswerError)
"""Failures that may be the API's, whoever the customer is: they open the breaker and end with it."""
TROUBLE_CODES: Final = frozenset(error.code for error in API_TROUBLE)


def tell_limits(runtime: Runtime, *, successes: int, failed_tenants: Collection[str] = ()) -> None:
    """Report to the breaker; when the API works again, what its trouble has parked goes on."""
    if not runtime.limits.report(successes=successes, failed_tenants=failed_tenants):
        return
    woken = some = _wake_some(runtime)
    while some == WAKE_AT_ONCE:  # fewer are the last: rows that are parked again meanwhile stay parked
        some = _wake_some(runtime)
        woken += some
    log.info("outage.ended", woken=woken)


def _wake_some(runtime: Runtime) -> int:
    with runtime.database.write() as session:
        now = runtime.database.now(session)
        return wake_parked(session, TROUBLE_CODES, now=now, min_attempts=runtime.policy.max_attempts)
