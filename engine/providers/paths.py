"""Reads values out of JSON: by dotted paths, and as moments."""

from datetime import UTC, datetime

from pydantic import JsonValue


def dig(value: JsonValue, path: str) -> JsonValue:
    """What lies at a dotted path, or nothing; a number is a place of a list."""
    for name in path.split("."):
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def instant(value: JsonValue) -> datetime | None:
    """A provider's timestamp, in seconds since 1970 or ISO 8601; nothing when it is neither."""
    value = value.replace("Z+0000", "Z") if isinstance(value, str) else value  # Marketo says it twice
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed and parsed.tzinfo is None else parsed
