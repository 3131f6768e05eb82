"""`GET /v1/syncs?changed_since=`: what has changed since a cursor, deletions included (an addition)."""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field, JsonValue

from engine.api.caller import Caller
from engine.api.oauth_app_shapes import Apps
from engine.api.sync_shapes import SyncObject
from engine.errors import BadRequestError, GoneError
from engine.oauth_apps import apps_of
from engine.sync_changes import Entry, Position, PositionLostError, changes_after
from engine.tables import SyncChange

DEFAULT_LIMIT: Final = 100
BEGINNING: Final = frozenset({"", "0"})
MAX_CHANGE: Final = 2**63 - 1
MAX_CURSOR: Final = 200
ABOUT: Final = (
    "list what has changed since this cursor, in the order of the changes; empty or `0` begins with all "
    "syncs. Only `limit` may be given beside it"
)

ChangedSince = Annotated[str | None, Query(description=ABOUT, max_length=MAX_CURSOR)]


class DeletedSync(BaseModel):
    """A sync that is gone, as its last change."""

    id: UUID
    deleted_at: datetime
    provider: str
    stream_id: UUID
    external_id: str | None
    metadata: dict[str, JsonValue]

    @classmethod
    def of(cls, change: SyncChange) -> "DeletedSync":
        return cls.model_validate(
            {
                "id": change.sync_id,
                "deleted_at": change.deleted_at,
                "provider": change.provider,
                "stream_id": change.stream_id,
                "external_id": change.external_id,
                "metadata": change.meta,
            }
        )


class SyncChanges(BaseModel):
    """A page of changes, each sync as it is now; `next_cursor` is always there to ask on with."""

    data: list[SyncObject | DeletedSync]
    next_cursor: str
    has_more: bool = Field(description="whether there is more to read at once")


def list_changes(caller: Caller, since: str, limit: int | None, others: Mapping[str, object]) -> SyncChanges:
    """Return a page, 400 for a cursor of nobody's, or 410 for one whose changes are no longer kept."""
    if refused := sorted(name for name, value in others.items() if value is not None):
        raise BadRequestError(f"Invalid query parameter {refused[0]}: not to be given with changed_since")
    after = None if since in BEGINNING else decode(since)
    on_sqlite = caller.services.database.is_sqlite
    try:
        with caller.read() as session:
            page = changes_after(session, caller.org_id, after, limit or DEFAULT_LIMIT, on_sqlite=on_sqlite)
            credentials = [credential for _, _, credential in page.entries if credential is not None]
            apps = apps_of(session, caller.org_id, credentials) if credentials else {}
    except PositionLostError:
        raise GoneError(
            "Gone: changes since this cursor are no longer kept, begin with an empty one"
        ) from None
    data = [_shown(entry, apps) for entry in page.entries]
    return SyncChanges(data=data, next_cursor=encode(page.position), has_more=page.has_more)


def encode(position: Position) -> str:
    """Return the cursor of a position."""
    text = f"{position.epoch} {position.change} {position.sync_id or ''}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> Position:
    """Return the position of a cursor; only what `encode` gives is one, all else is 400."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        epoch, change, sync_id = base64.urlsafe_b64decode(padded).decode("ascii").split(" ")
        position = Position(epoch, int(change), UUID(sync_id) if sync_id else None)
    except (ValueError, binascii.Error):
        raise _invalid() from None
    if encode(position) != cursor or not 0 <= position.change <= MAX_CHANGE:
        raise _invalid()
    return position


def _invalid() -> BadRequestError:
    return BadRequestError("Invalid query parameter changed_since: not a cursor of this API")


def _shown(entry: Entry, apps: Apps) -> SyncObject | DeletedSync:
    change, sync, credential = entry
    if sync is None or credential is None:
        return DeletedSync.of(change)
    return SyncObject.of(sync, credential, apps)
