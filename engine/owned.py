"""The one way to a row of an organisation: what belongs to another is as absent as what never was."""

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar
from uuid import UUID

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from engine.errors import NotFoundError
from engine.tables import Consumer, OAuthApp, Sync
from engine.tables.base import Owned

T = TypeVar("T", bound=Owned)
NOUNS: Final[Mapping[type[Owned], str]] = {Consumer: "http consumer", OAuthApp: "OAuth app"}


class Lock(Enum):
    """What a transaction is about to do with a row; on SQLite a writer is alone anyway."""

    NONE = None
    REFER = "key share"
    CHANGE = "no key update"
    DELETE = "update"


def owned(table: type[T], org_id: UUID) -> SelectOfScalar[T]:
    """Everything of one kind that an organisation has; removed syncs are gone."""
    statement = select(table).where(table.org_id == org_id)
    return statement.where(col(Sync.removed_at).is_(None)) if table is Sync else statement


def find(session: Session, table: type[T], org_id: UUID, row_id: str | UUID, lock: Lock = Lock.NONE) -> T:
    """One row by its id, or 404."""
    row = session.exec(locked(owned(table, org_id).where(table.id == parse_id(table, row_id)), lock)).first()
    if row is None:
        raise NotFoundError(noun(table))
    return row


def locked(statement: SelectOfScalar[T], lock: Lock) -> SelectOfScalar[T]:
    """The statement, holding what it finds until the transaction ends."""
    if lock is Lock.NONE:
        return statement
    return statement.with_for_update(read=lock is Lock.REFER, key_share=lock is not Lock.DELETE)


def parse_id(table: type[Owned], value: str | UUID) -> UUID:
    """An id from a path; one that cannot be an id belongs to nothing."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except ValueError:
        raise NotFoundError(noun(table)) from None


def noun(table: type[Owned]) -> str:
    """What the API calls a row of this table."""
    return NOUNS.get(table, str(table.__tablename__))
