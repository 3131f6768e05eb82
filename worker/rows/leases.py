"""Keeping the leases of connections alive while their steps are under way."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from foundation import leases
from foundation.database import Database, utc_now
from worker.rows.claims import renew
from worker.steps.verdict import Claim


class LeaseKeeper:
    """Renews the leases of everything this process is working on."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        self._leases = leases.Leases()

        def renew_all(held: Mapping[UUID, int]) -> None:
            renew(database, held, until=utc_now() + lease)

        self._keeper = leases.LeaseKeeper(self._leases, renew_all, every_s=lease.total_seconds() / 3)

    @contextmanager
    def holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Hold these claims until the block ends, or `release` lets go of them one by one."""
        with self._leases.holding(_fences(claims)):
            yield

    def release(self, claims: Sequence[Claim]) -> None:
        self._leases.let_go(_fences(claims))

    def held(self) -> Mapping[UUID, int]:
        """The connections and the fences of their claims."""
        return self._leases.held()

    def close(self) -> None:
        self._keeper.close()


def _fences(claims: Sequence[Claim]) -> dict[UUID, int]:
    return {claim.connection.id: claim.connection.fence for claim in claims}
