"""Taking known secrets out of a text that somebody else wrote."""

import json
from collections.abc import Iterator, Mapping

from foundation.secret_shapes import MASK, SECRET_VALUES

MIN_SECRET_LENGTH = 4  # shorter values are words and flags


def redact(text: str, *, secrets_in: object = None) -> str:
    """The text without anything that looks like a key, and without any string value of this credential."""
    for secret in sorted(set(_spellings(secrets_in)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return SECRET_VALUES.sub(MASK, text)


def redact_within(value: object, *, secrets_in: object) -> object:
    """The same for every text inside a JSON value, names included."""
    if isinstance(value, str):
        return redact(value, secrets_in=secrets_in)
    if isinstance(value, Mapping):
        return {
            redact(str(name), secrets_in=secrets_in): redact_within(inner, secrets_in=secrets_in)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_within(inner, secrets_in=secrets_in) for inner in value]
    return value


def _spellings(value: object) -> Iterator[str]:
    """Each secret as it is, and as it looks inside JSON."""
    for secret in _strings(value):
        yield secret
        yield json.dumps(secret)[1:-1]
        yield json.dumps(secret, ensure_ascii=False)[1:-1]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= MIN_SECRET_LENGTH:
        yield value
    elif isinstance(value, Mapping):
        properties = value.get("properties", value)  # the rest of a credential is not secret
        named = properties.items() if isinstance(properties, Mapping) else ()
        for name, inner in named:
            if name != "kind":
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
