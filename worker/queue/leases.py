"""Keeping the leases of claimed work alive while its steps are under way."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from foundation import leases
from foundation.database import Database
from worker.queue.claims import renew
from worker.queue.verdict import Claim, Key


class ClaimKeeper:
    """Renews the leases of everything this process is working on."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        self._leases: leases.Leases[Key] = leases.Leases()

        def renew_all(held: Mapping[Key, int]) -> None:
            renew(database, held, lease=lease)

        self._keeper = leases.LeaseKeeper(self._leases, renew_all, every_s=lease.total_seconds() / 3)

    @contextmanager
    def holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Hold these claims until the block ends, or `release` lets go of them one by one."""
        with self._leases.holding(_fences(claims)):
            yield

    def release(self, claims: Sequence[Claim]) -> None:
        self._leases.let_go(_fences(claims))

    def held(self) -> Mapping[Key, int]:
        """The rows of work and the fences of their claims."""
        return self._leases.held()

    def close(self) -> None:
        self._keeper.close()


def _fences(claims: Sequence[Claim]) -> dict[Key, int]:
    return {claim.key: claim.fence for claim in claims}
