"""How far the Management API's feed of changed syncs has been followed."""

from datetime import datetime

from sqlmodel import Field

from models.base import Row
from models.columns import instant, now_field

SYNCS = "syncs"


class ChangeCursor(Row, table=True):
    """The one row of a feed. Its lease makes sure that one worker follows at a time."""

    __tablename__ = "change_cursor"

    name: str = Field(default=SYNCS, primary_key=True, max_length=32)
    cursor: str | None = Field(default=None, max_length=1024)
    """Where to go on; empty: from the beginning."""
    is_supported: bool | None = None
    """Whether the API has the feed, as far as it has been asked."""
    caught_up_at: datetime | None = instant()
    """When the end of the feed was last reached."""
    failing_since: datetime | None = instant()
    """Since when no page could be read and recorded; empty while pages can."""
    due_at: datetime = now_field()
    leased_until: datetime | None = instant()
    fence: int = 0
