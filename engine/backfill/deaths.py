"""A reading whose workers die: it rests ever longer, so as not to take one worker after the other with it."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlmodel import Session

from engine.backfill.verdict import Failure
from engine.health import Trouble, TroubleCode, since
from engine.syncs import settle
from engine.tables import Progress, Sync

TOLERATED: Final = 4
"""So many in a row may be chance: a deployment, or another reading of the same worker."""
REST_S: Final = (10.0, 900.0)

log = structlog.get_logger(__name__)


def rest_s(deaths: int) -> float:
    """None after what may be chance; from then on twice as long each time."""
    if deaths <= TOLERATED:
        return 0.0
    first, longest = REST_S
    return min(longest, first * 2.0 ** min(deaths - TOLERATED - 1, 20))


def note_death(session: Session, sync: Sync, progress: Progress, now: datetime) -> bool:
    """A lease ran out, so whoever had the reading ended without a word; says whether it now has to rest."""
    progress.deaths += 1
    progress.leased_until = None
    rest = rest_s(progress.deaths)
    if rest == 0:
        return False
    message = f"{progress.deaths} times in a row, whoever read {progress.collection_id} ended without a word"
    earlier = Trouble.model_validate(progress.trouble) if progress.trouble else None
    trouble = Failure(TroubleCode.WORKER_DIED, message).trouble(now, progress.collection_id)
    progress.trouble = since(trouble, earlier).model_dump(mode="json")
    progress.due_at = now + timedelta(seconds=rest)
    progress.hinted_until = None
    log.error("reading.rests", sync_id=str(sync.id), collection_id=progress.collection_id, seconds=rest)
    settle(session, sync, now)
    return True
