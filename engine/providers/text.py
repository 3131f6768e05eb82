"""What a provider's JSON may say and no database keeps: NUL characters, and halves of others."""

import re
from typing import Final

from pydantic import JsonValue

from foundation.database import storable

SUSPECT: Final = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)
"""Escapes that may amount to such; most come in pairs and mean one good character."""


def mended(value: JsonValue) -> JsonValue:
    """The same value with marks in place of what cannot be kept, in names and texts at any depth."""
    match value:
        case str():
            return storable(value, max_length=len(value))
        case list():
            return [mended(each) for each in value]
        case dict():
            return {storable(name, max_length=len(name)): mended(each) for name, each in value.items()}
        case _:
            return value
