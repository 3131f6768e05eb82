"""What went wrong with a request, whose trouble it is, and when to try again: pure decisions."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from engine.health import PARTS, Trouble, TroubleCode, TroublePart

SOON_S: Final = (1.0, 60.0)
"""First and longest bound of the wait when waiting alone may help."""
SLOWLY_S: Final = (60.0, 900.0)
"""The same when a person has to do something first."""
LONGEST_RETRY_AFTER_S: Final = 24 * 3600.0

NUMBER: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
PASSING: Final = frozenset({408, 425})


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request: the trouble, without when it began, and how long the provider asked to wait."""

    code: TroubleCode
    message: str
    retry_after_s: float | None = None

    def trouble(self, now: datetime, collection_id: str | None) -> Trouble:
        part = PARTS[self.code]
        about = collection_id if part is TroublePart.COLLECTION else None
        return Trouble(part=part, code=self.code, message=self.message, since=now, collection_id=about)


def judge(title: str, collection_id: str, status: int, headers: Mapping[str, str], now: datetime) -> Failure:
    """Whose trouble an unsuccessful answer is. The answer's own text stays out: it may quote the secret."""
    if status in {401, 403}:
        message = f"{title} rejected the credential ({status}): import it again with valid secrets"
        return Failure(TroubleCode.CREDENTIAL_REJECTED, message)
    if status == 429:
        wait = retry_after(headers.get("retry-after"), now)
        return Failure(TroubleCode.RATE_LIMITED, f"{title} asks to slow down (429)", wait)
    if status in PASSING or status >= 500:
        wait = retry_after(headers.get("retry-after"), now)
        return Failure(TroubleCode.PROVIDER_UNAVAILABLE, f"{title} answered {status}", wait)
    message = f"{title} refuses to list {collection_id} ({status})"
    return Failure(TroubleCode.COLLECTION_FAILED, message)


def unreachable(title: str, what: str) -> Failure:
    return Failure(TroubleCode.PROVIDER_UNAVAILABLE, f"{title} did not answer ({what})")


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds asked for by a `Retry-After`, as a number or as a date; nothing when it is neither."""
    if value is None:
        return None
    seconds = float(value) if NUMBER.fullmatch(value) else _until(value, now)
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def wait_s(failure: Failure, failures: int, draw: random.Random) -> float:
    """How long to wait: as asked, else a random part (full jitter) of a bound that doubles."""
    if failure.retry_after_s is not None:
        return failure.retry_after_s + draw.uniform(0, 0.5)
    hopeless = failure.code in {TroubleCode.CREDENTIAL_REJECTED, TroubleCode.COLLECTION_FAILED}
    first, longest = SLOWLY_S if hopeless else SOON_S
    bound = min(longest, first * 2.0 ** min(failures - 1, 20))
    return draw.uniform(bound / 2, bound) if hopeless else draw.uniform(0, bound)


def _until(value: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now).total_seconds()
