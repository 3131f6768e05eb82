"""Writing the history of connections: many rows with one statement."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Table, insert
from sqlmodel import Session

from models import Move, Transition

_transitions: Final[Table] = Transition.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it


def write_moves(session: Session, moves: Iterable[Move]) -> None:
    """Keep these moves. Their connections must have been written before."""
    rows = [move.values() for move in moves]
    if rows:
        session.connection().execute(insert(_transitions), rows)
