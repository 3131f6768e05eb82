"""Taking known secrets out of a text that somebody else wrote."""

from collections.abc import Iterator, Mapping

from foundation.logs import MASK, SECRET_VALUES

MIN_SECRET_LENGTH = 4  # shorter values are words and flags


def redact(text: str, *, secrets_in: object = None) -> str:
    """The text without anything that looks like a key, and without any string value of this credential."""
    for secret in sorted(set(_strings(secrets_in)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return SECRET_VALUES.sub(MASK, text)


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
