"""One user's way to the provider and back, carried sealed in the `state` of the provider's leg."""

import secrets
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from engine.sealing import Safe
from foundation.database import utc_now
from foundation.vault import VaultError

LASTS: Final = timedelta(minutes=15)
"""How long a user may take at the provider."""
CONTEXT: Final = "connect journey"


class Journey(BaseModel):
    """What has to be known again when the user comes back."""

    oauth_app_id: UUID
    redirect_uri: str
    state: str
    code_challenge: str | None
    inputs: dict[str, str]
    browser: str = Field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    """Also in a cookie, so that nobody else's journey can be finished in this browser."""
    verifier: str = Field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    expires_at: datetime = Field(default_factory=lambda: utc_now() + LASTS)


def seal_journey(safe: Safe, journey: Journey) -> str:
    return safe.seal_text(journey.model_dump_json(), context=CONTEXT)


def open_journey(safe: Safe, sealed: str, now: datetime) -> Journey | None:
    """The journey, unless it was not begun here or is over."""
    try:
        journey = Journey.model_validate_json(safe.open_text(sealed, context=CONTEXT))
    except (VaultError, ValidationError, UnicodeError):
        return None
    return journey if now < journey.expires_at else None
