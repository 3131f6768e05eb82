"""What one run of a step did: the summary that Flower shows, and what the queue is asked for next."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from worker.queue.record import Result

NAMED_AT_MOST: Final = 3


@dataclass(slots=True)
class Report:
    """The run of a step for one batch. Holds no secret: codes, counts, and names of tenants."""

    did: "Counter[str]" = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    """Tenant, provider and code of each connection that failed for good."""
    moved: list[str] = field(default_factory=list)
    """Tenants whose connections moved on."""
    retry_in: timedelta | None = None
    """When the last of the rows that failed for the moment is due again; None if there are none."""
    is_full: bool = False
    """Whether more may be due than one batch holds."""

    def add(self, results: Iterable[Result]) -> None:
        for claim, verdict in results:
            self.did[verdict.did] += 1
            if verdict.move is not None:
                self.moved.append(claim.external_id)
            if verdict.problem is not None and verdict.did.startswith("failed"):
                self.failed.append(f"{claim.external_id} {claim.provider} {verdict.problem.code}")
            if verdict.is_retry and verdict.wait is not None:
                self.retry_in = max(self.retry_in or timedelta(0), verdict.wait)

    @property
    def summary(self) -> str:
        """For example `48 created, 1 adopted, 1 to retry: api_unavailable`."""
        return ", ".join(f"{count} {did}" for did, count in self.did.most_common()) or "nothing was due"

    @property
    def failures(self) -> str:
        """The first failures by name, and how many more there are."""
        named = "; ".join(self.failed[:NAMED_AT_MOST])
        more = len(self.failed) - NAMED_AT_MOST
        return f"{named} and {more} more" if more > 0 else named
