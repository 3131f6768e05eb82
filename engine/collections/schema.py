"""A JSON Schema that fits a sample of records: it says what was seen and forbids nothing."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from pydantic import JsonValue

from engine.tables import JsonObject

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DEEPEST: Final = 6
MOST_PROPERTIES: Final = 500


def learn(title: str, records: Sequence[JsonObject]) -> JsonObject:
    """The schema of a collection's raw records, as far as a sample tells."""
    return {"$schema": DIALECT, "title": title, "type": "object"} | _properties(records, depth=0)


def _describe(values: Sequence[JsonValue], depth: int) -> JsonObject:
    names = sorted({_type_name(value) for value in values})
    if "integer" in names and "number" in names:
        names.remove("integer")
    described: JsonObject = {}
    if names:
        described["type"] = names[0] if len(names) == 1 else list(names)
    if (text_format := _format([value for value in values if isinstance(value, str)])) is not None:
        described["format"] = text_format
    if depth < DEEPEST:
        described |= _properties([value for value in values if isinstance(value, dict)], depth)
        described |= _items([each for value in values if isinstance(value, list) for each in value], depth)
    return described


def _properties(objects: Sequence[Mapping[str, JsonValue]], depth: int) -> JsonObject:
    names = list(dict.fromkeys(name for each in objects for name in each))
    if not names or len(names) > MOST_PROPERTIES:  # so many names are data and not a shape
        return {}
    found: JsonObject = {
        name: _describe([each[name] for each in objects if name in each], depth + 1) for name in names
    }
    return {"properties": found}


def _items(values: Sequence[JsonValue], depth: int) -> JsonObject:
    return {"items": _describe(values, depth + 1)} if values else {}


def _type_name(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _format(texts: Sequence[str]) -> str | None:
    if texts and all(_is_date(text) for text in texts):
        return "date"
    return "date-time" if texts and all(_is_date_time(text) for text in texts) else None


def _is_date(text: str) -> bool:
    if len(text) != 10 or text[4] != "-":
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_date_time(text: str) -> bool:
    if text[10:11] != "T":
        return False
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
