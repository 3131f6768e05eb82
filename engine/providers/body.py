"""What a request sends as JSON: a template from the provider's file, with values put at dotted paths."""

from collections.abc import Mapping

from pydantic import JsonValue

from engine.tables.base import JsonObject


class NoSuchPlaceError(ValueError):
    """A path leads through what is neither an object nor a list that is long enough."""


def placed(template: JsonObject, values: Mapping[str, str | int]) -> JsonObject:
    """The template with each value at its path; objects are made on the way, places of a list are not."""
    body: JsonValue = template
    for path, value in values.items():
        body = _with(body, path.split("."), value)
    return body if isinstance(body, dict) else {}


def replaced(value: JsonValue, placeholder: str, text: str) -> JsonValue:
    """The same value with a placeholder replaced in all of its strings."""
    if isinstance(value, str):
        return value.replace(placeholder, text)
    if isinstance(value, list):
        return [replaced(each, placeholder, text) for each in value]
    if isinstance(value, dict):
        return {name: replaced(each, placeholder, text) for name, each in value.items()}
    return value


def _with(value: JsonValue, path: list[str], leaf: JsonValue) -> JsonValue:
    if not path:
        return leaf
    name, *rest = path
    if value is None or isinstance(value, dict):
        here = value or {}
        return {**here, name: _with(here.get(name), rest, leaf)}
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        place = int(name)
        return [*value[:place], _with(value[place], rest, leaf), *value[place + 1 :]]
    raise NoSuchPlaceError(f"no place {name} in the body")
