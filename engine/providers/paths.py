"""Reads values out of JSON by dotted paths."""

from pydantic import JsonValue


def dig(value: JsonValue, path: str) -> JsonValue:
    """What lies at a dotted path, or nothing."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
