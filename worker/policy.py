"""How patient Gangway is: with an API that fails, and with a refusal."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

INCIDENT_TENANTS: Final = 5
"""So many tenants whose credentials one provider refuses within `INCIDENT_WINDOW` are one incident."""
INCIDENT_WINDOW: Final = timedelta(minutes=5)
INCIDENT_LASTS: Final = timedelta(hours=6)
"""How long an incident keeps a refused connection from being called failed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try, and the slow pace for a connection that has used up its attempts."""

    max_attempts: int
    parked_pace: timedelta
    refusals: int = 3
    """So many refusals in a row are needed before a connection fails ..."""
    refusal_lasts: timedelta = timedelta(minutes=2)
    """... and so much time between the first and the last of them."""

    def is_lasting(self, *, refusals: int, since: datetime | None, now: datetime) -> bool:
        """Whether a refusal has lasted long enough to be believed."""
        return since is not None and refusals >= self.refusals and now - since >= self.refusal_lasts
