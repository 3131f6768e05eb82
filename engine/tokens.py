"""API tokens: issued once, kept as a hash, limited by scopes, an expiry and revocation (contract 1.1)."""

import hashlib
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import SecretStr
from sqlmodel import Session, col, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from engine.tables import ApiToken, Scope
from foundation.database import Database, utc_now

TOKEN_BYTES: Final = 48
REMEMBERED_FOR_S: Final = 10.0
"""So long may a revoked token still be taken by a process that has just seen it."""
REMEMBERED: Final = 1_000
NOTED_EVERY: Final = timedelta(minutes=1)
"""How exact `last_used_at` is; finer would make every read a write."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token speaks for, and what it may do."""

    org_id: UUID
    scopes: frozenset[Scope]


def hash_token(token: str) -> str:
    """A token has the entropy of a key, so a plain hash hides it, and looking the hash up leaks no time."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue(
    session: Session, org_id: UUID, name: str, scopes: Collection[Scope], expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """A new token. Its text exists only here: the row holds the hash."""
    text = secrets.token_urlsafe(TOKEN_BYTES)
    token = ApiToken(
        org_id=org_id,
        name=name,
        token_hash=hash_token(text),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    session.add(token)
    session.flush()
    return token, text


def revoke(session: Session, token_id: UUID) -> bool:
    """End a token for good; whether there was one to end."""
    revoked = update(ApiToken).where(col(ApiToken.id) == token_id, col(ApiToken.revoked_at).is_(None))
    return session.exec(revoked.values(revoked_at=utc_now())).rowcount == 1


def tokens_of(session: Session, org_id: UUID) -> Sequence[ApiToken]:
    """All tokens an organisation was ever given, oldest first."""
    mine = select(ApiToken).where(ApiToken.org_id == org_id)
    return session.exec(mine.order_by(col(ApiToken.created_at), col(ApiToken.id))).all()


class Tokens:
    """Resolves tokens and remembers the answer for a moment.

    A token that came from the settings is valid while this process's settings name it, and no longer.
    """

    def __init__(self, database: Database, configured: Iterable[SecretStr] = ()) -> None:
        self._database = database
        self._configured = frozenset(hash_token(token.get_secret_value()) for token in configured)
        self._known: dict[str, tuple[Bearer, float]] = {}

    def recall(self, text: str) -> Bearer | None:
        """Its bearer, if it was looked up a moment ago."""
        bearer, until = self._known.get(hash_token(text), (None, 0.0))
        return bearer if time.monotonic() < until else None

    def find(self, text: str) -> Bearer | None:
        """Its bearer, if it is a token that neither was revoked nor has expired."""
        token_hash, now = hash_token(text), utc_now()
        with self._database.read() as session:
            token = session.exec(_valid(token_hash, now)).first()
        if token is None or (token.from_settings and token_hash not in self._configured):
            return None
        if token.last_used_at is None or token.last_used_at < now - NOTED_EVERY:
            self._note_use(token.id, now)
        bearer = Bearer(token.org_id, frozenset(Scope(scope) for scope in token.scopes))
        left_s = (token.expires_at - now).total_seconds() if token.expires_at else REMEMBERED_FOR_S
        self._remember(token_hash, bearer, min(left_s, REMEMBERED_FOR_S))
        return bearer

    def _note_use(self, token_id: UUID, now: datetime) -> None:
        with self._database.write() as session:
            session.exec(update(ApiToken).where(col(ApiToken.id) == token_id).values(last_used_at=now))

    def _remember(self, token_hash: str, bearer: Bearer, for_s: float) -> None:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token_hash] = (bearer, time.monotonic() + for_s)


def _valid(token_hash: str, now: datetime) -> SelectOfScalar[ApiToken]:
    return select(ApiToken).where(
        ApiToken.token_hash == token_hash,
        col(ApiToken.revoked_at).is_(None),
        or_(col(ApiToken.expires_at).is_(None), col(ApiToken.expires_at) > now),
    )
