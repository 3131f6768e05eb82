"""Loading the rows that a group of messages concerns, with few statements and in one order of locks.

Everyone locks tenants by `external_id` first, then connections by `id`, then their work: so no two
transactions can wait for each other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Insert, Table, collate, or_, tuple_
from sqlalchemy import select as sa_select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from foundation.database import new_id
from models import Connection, InboundEvent, Tenant
from models.columns import JsonObject

Named = tuple[UUID, str, str]
"""A connection as an event names it: tenant, provider, slot."""
_UNKNOWN: Final[dict[str, object]] = {
    "plan": "default",
    "metadata": {},
    "is_announced": False,
    "is_removed": False,
    "clock": {},
}
"""A tenant of whom nothing has been said yet."""
_tenants: Final[Table] = Tenant.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it


@dataclass(slots=True)
class Tenants:
    """The tenants of a group of messages, locked."""

    by_external_id: Mapping[str, Tenant]
    new: set[UUID] = field(default_factory=set)
    """Those that did not exist before this transaction."""


def locked_tenants(session: Session, external_ids: Iterable[str], *, now: datetime) -> Tenants:
    """The tenants' rows, locked; new ones are made in one statement: two processes may both try."""
    made = {external_id: new_id() for external_id in sorted(set(external_ids))}
    new = _UNKNOWN | {"created_at": now, "updated_at": now}
    session.connection().execute(
        _insert_once(session),
        [new | {"id": tenant_id, "external_id": external_id} for external_id, tenant_id in made.items()],
    )
    mine = select(Tenant).where(col(Tenant.external_id).in_(list(made))).order_by(_as_bytes(session))
    # not the strongest lock: history rows that workers write meanwhile refer to this row
    rows = session.exec(mine.with_for_update(key_share=True)).all()
    are_new = {row.id for row in rows if row.id == made[row.external_id]}
    return Tenants({row.external_id: row for row in rows}, are_new)


@dataclass(slots=True)
class Known:
    """A message that has been stored: the digest of what it said, and its answer."""

    body_digest: str
    answer: JsonObject


def known_messages(session: Session, messages: Collection[tuple[str, str]]) -> dict[tuple[str, str], Known]:
    """What was stored under these sources and message ids before."""
    identity = tuple_(col(InboundEvent.source), col(InboundEvent.message_id))
    stored = InboundEvent
    columns = sa_select(
        col(stored.source), col(stored.message_id), col(stored.body_digest), col(stored.answer)
    )
    rows = session.execute(columns.where(identity.in_(list(messages))))
    return {(source, message_id): Known(digest, answer) for source, message_id, digest, answer in rows}


def locked_connections(
    session: Session, named: Collection[Named], whole_tenants: Collection[UUID]
) -> Sequence[Connection]:
    """The connections that the messages name, and all of these tenants, locked."""
    if not named and not whole_tenants:
        return ()
    identity = tuple_(col(Connection.tenant_id), col(Connection.provider), col(Connection.slot))
    mine = select(Connection).where(
        or_(identity.in_(list(named)), col(Connection.tenant_id).in_(list(whole_tenants)))
    )
    return session.exec(mine.order_by(col(Connection.id)).with_for_update(key_share=True)).all()


def _as_bytes(session: Session) -> ColumnElement[str]:
    """PostgreSQL would order texts as people do, and not as Python does."""
    external_id = _tenants.c.external_id
    return collate(external_id, "C") if session.get_bind().dialect.name == "postgresql" else external_id


def _insert_once(session: Session) -> Insert:
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(_tenants).on_conflict_do_nothing(index_elements=["external_id"])
    return sqlite.insert(_tenants).on_conflict_do_nothing(index_elements=["external_id"])
