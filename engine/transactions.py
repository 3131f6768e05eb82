"""A unit of work that may lose a race and then looks again."""

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session

from foundation.database import Database

ATTEMPTS: Final = 4
LOST_RACES: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock

Result = TypeVar("Result")


def retrying(database: Database, work: Callable[[Session], Result]) -> Result:
    """Run `work` in one write transaction, and again when somebody was faster to insert the same."""
    for _ in range(ATTEMPTS - 1):
        try:
            with database.write() as session:
                return work(session)
        except DBAPIError as exc:
            if not _lost_a_race(exc):
                raise
    with database.write() as session:
        return work(session)


def _lost_a_race(exc: DBAPIError) -> bool:
    return isinstance(exc, IntegrityError) or getattr(exc.orig, "sqlstate", None) in LOST_RACES
