"""The health of what a provider takes or refuses: credentials and OAuth apps (contract 4.1, last row)."""

from datetime import datetime
from typing import Final

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, SQLColumnExpression, false, true

GOOD: Final = frozenset({"ok", "healthy"})
"""The list's filter knows both vocabularies (contract 4.1)."""


class Verdict(BaseModel):
    """Whether the provider takes it."""

    status: str = Field(examples=["ok", "error"])
    notes: list[str]
    time: datetime


def verdict(rejected_at: datetime | None, otherwise: datetime, note: str) -> Verdict:
    """Ok, or since when it is refused and what to do about it."""
    if rejected_at is None:
        return Verdict(status="ok", notes=[], time=otherwise)
    return Verdict(status="error", notes=[note], time=rejected_at)


def has_verdict(rejected_at: SQLColumnExpression[datetime | None], status: str | None) -> ColumnElement[bool]:
    """A condition: the verdict reads so, if that is asked for."""
    if status is None:
        return true()
    if status in GOOD:
        return rejected_at.is_(None)
    return rejected_at.is_not(None) if status == "error" else false()
