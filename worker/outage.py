"""After an outage of the Management API, what was parked goes on at once rather than at the slow pace."""

import threading
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, update

from models import Connection
from worker.errors import ApiTokenError, ApiUnavailableError, ProvisioningError

FAILURES_OF_AN_OUTAGE: Final = 10
"""So many failures with no success between them are the API's trouble, and not one connection's."""
CODES: Final = (ApiUnavailableError.code, ApiTokenError.code)


class Outage:
    """Whether the API seems to be out, judged by this process's own calls."""

    def __init__(self) -> None:
        self._failures_in_a_row = 0
        self._lock = threading.Lock()

    def failed(self, error: ProvisioningError) -> None:
        if isinstance(error, ApiUnavailableError | ApiTokenError):
            with self._lock:
                self._failures_in_a_row += 1

    def is_over(self) -> bool:
        """To be asked after a success: whether it ended an outage. Says so once."""
        with self._lock:
            failures, self._failures_in_a_row = self._failures_in_a_row, 0
        return failures >= FAILURES_OF_AN_OUTAGE


def wake_parked(session: Session, *, now: datetime) -> int:
    """Make everything due that an outage has put off; returns how much that is. The sweep paces it."""
    parked = col(Connection.error_code).in_(CODES) & (col(Connection.due_at) > now)
    wake = update(Connection).where(parked).values(due_at=now, hinted_until=None)
    return session.connection().execute(wake).rowcount
