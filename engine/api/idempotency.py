"""`Idempotency-Key` on a POST: the same key again gets the first object's current answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Depends, Header
from pydantic import BaseModel
from sqlmodel import Session, select

from engine.api.caller import Caller
from engine.errors import InvalidError
from engine.owned import find
from engine.sealing import Safe
from engine.tables import IdempotencyKey
from engine.tables.base import Owned

T = TypeVar("T", bound=Owned)


@dataclass(frozen=True, slots=True)
class OnceOnly:
    """One POST under a key: finds what it created before, or notes what it creates now."""

    key: str
    route: str
    body: str

    def earlier(self, session: Session, safe: Safe, org_id: UUID) -> UUID | None:
        """What this key created; 422 when it came with another body then."""
        statement = select(IdempotencyKey).where(
            IdempotencyKey.org_id == org_id,
            IdempotencyKey.route == self.route,
            IdempotencyKey.key == self.key,
        )
        known = session.exec(statement).first()
        if known is None:
            return None
        if known.body_digest != safe.fingerprint(session, org_id, self.route, self.body):
            raise InvalidError(summary="Idempotency-Key was used before with another body")
        return known.object_id

    def note(self, session: Session, safe: Safe, org_id: UUID, object_id: UUID) -> None:
        """Belongs in the transaction that creates the object."""
        digest = safe.fingerprint(session, org_id, self.route, self.body)
        noted = IdempotencyKey(
            org_id=org_id, route=self.route, key=self.key, body_digest=digest, object_id=object_id
        )
        session.add(noted)
        session.flush()


def once_only(key: str | None, route: str, body: BaseModel) -> OnceOnly | None:
    """What to remember of a POST, if its client gave a key."""
    return None if key is None else OnceOnly(key, route, body.model_dump_json())


def create_once(
    session: Session, caller: Caller, once: OnceOnly | None, table: type[T], create: Callable[[], T]
) -> T:
    """Create a row, or give the one that this key created before."""
    safe = caller.services.safe
    if once is not None and (earlier := once.earlier(session, safe, caller.org_id)):
        return find(session, table, caller.org_id, earlier)
    row = create()
    session.add(row)
    session.flush()
    if once is not None:
        once.note(session, safe, caller.org_id, row.id)
    return row


def _key(
    key: Annotated[
        str | None,
        Header(alias="Idempotency-Key", min_length=1, max_length=255, description="kept for a day"),
    ] = None,
) -> str | None:
    return key


Key = Annotated[str | None, Depends(_key)]
