"""What the double counts and remembers about the requests it received."""

import time
from collections import Counter, deque
from typing import Final

from .faults import Fault
from .validation import JsonObject
from .wire import Request, Response

LOG_LENGTH: Final = 10_000


class Tally:
    """Counts requests and keeps the last of them, never their bodies, queries or credentials."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._max_in_flight = 0
        self._requests: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._log: deque[JsonObject] = deque(maxlen=LOG_LENGTH)

    def enter(self) -> None:
        """Count a request in."""
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)

    def leave(self) -> None:
        """Count a request out."""
        self._in_flight -= 1

    def note(self, request: Request, route: str, outcome: object, fault: Fault | None) -> None:
        """Remember what became of a request."""
        status = outcome.status if isinstance(outcome, Response) else None
        self._requests[route] += 1
        self._statuses[str(status or "none")] += 1
        if fault is not None:
            self._faults[fault] += 1
        self._log.append(
            {
                "at": time.time(),
                "method": request.method,
                "path": request.path,
                "request_id": request.headers.get("x-request-id"),
                "status": status,
                "fault": fault,
            }
        )

    def counts(self) -> JsonObject:
        """Show the counts."""
        return {
            "requests": self._requests,
            "statuses": self._statuses,
            "faults": self._faults,
            "max_concurrent_requests": self._max_in_flight,
        }

    def last(self, limit: int) -> list[JsonObject]:
        """Show the last requests, oldest first."""
        return list(self._log)[-limit:] if limit else []
