"""DELETE: refused while others use what is to go."""

from collections.abc import Mapping
from uuid import UUID

from sqlmodel import Session

from engine.api.caller import Caller
from engine.api.shapes import Deleted
from engine.errors import InvalidError
from engine.owned import Lock, find, noun, owned
from engine.tables.base import Owned

Users = Mapping[type[Owned], str]
"""Who may use a row, and in which of their columns its id then is."""


def delete_unused(caller: Caller, table: type[Owned], row_id: str, users: Users | None = None) -> Deleted:
    """Delete a row that nobody uses any more."""

    def work(session: Session) -> UUID:
        row = find(session, table, caller.org_id, row_id, Lock.DELETE)
        for user, column in (users or {}).items():
            used = owned(user, caller.org_id).where(getattr(user, column) == row.id).limit(1)
            if session.exec(used).first() is not None:
                reason = f"{noun(user)}s use this {noun(table)}, delete them first"
                raise InvalidError(summary=f"Validation failed: {reason}")
        session.delete(row)
        return row.id

    return Deleted(id=caller.write(work))
