"""A page of the feed of changed syncs: an addition to the contract that our engine has."""

from datetime import datetime

from pydantic import Field

from worker.management.shapes import Id, Remote, RemoteSync


class DeletedSync(Remote):
    """A sync that no longer exists."""

    id: Id
    deleted_at: datetime


class ChangesPage(Remote):
    """Syncs in the order of their changes, and the cursor to go on from."""

    changed: tuple[RemoteSync, ...] = ()
    deleted: tuple[DeletedSync, ...] = ()
    unread: tuple[str, ...] = ()
    """Ids of syncs that the page showed in a way we cannot read."""
    next_cursor: str = Field(min_length=1, max_length=1024)
    has_more: bool
