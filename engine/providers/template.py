"""What a request sends: templates from the provider's file, with values put into them."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pydantic import JsonValue

from engine.tables.base import JsonObject

Values: TypeAlias = Mapping[str, str | int | Sequence[str]]
"""Placeholders, braces included, and what they stand for."""


class NoSuchPlaceError(ValueError):
    """A path leads through what is neither an object nor a list that is long enough."""


def placed(template: JsonObject, values: Mapping[str, str | int]) -> JsonObject:
    """The template with each value at its path; objects are made on the way, places of a list are not."""
    body: JsonValue = template
    for path, value in values.items():
        body = _with(body, path.split("."), value)
    return body if isinstance(body, dict) else {}


def filled(template: JsonObject, values: Values) -> JsonObject:
    """The template with its placeholders replaced; text that is nothing else becomes the value itself."""
    return {name: _filled(value, values) for name, value in template.items()}


def filled_text(template: str, values: Values) -> str:
    """The text with its placeholders replaced; a list is joined with commas."""
    for placeholder, value in values.items():
        text = str(value) if isinstance(value, str | int) else ",".join(value)
        template = template.replace(placeholder, text)
    return template


def _filled(value: JsonValue, values: Values) -> JsonValue:
    if isinstance(value, str):
        whole = values.get(value)
        if whole is None:
            return filled_text(value, values)
        return whole if isinstance(whole, str | int) else list(whole)
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, dict):
        return filled(value, values)
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
