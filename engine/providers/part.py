"""What every part of a provider's file has in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a provider's file: nothing unknown, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
