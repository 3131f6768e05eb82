"""A provider's successful answer, and what is wrong with one that cannot be used."""

from dataclasses import dataclass

from pydantic import JsonValue


class UnreadableAnswerError(Exception):
    """A successful answer that is not what the provider's file promises."""


class StrayLinkError(UnreadableAnswerError):
    """A link to the next page that leads to another host; following it would carry the token there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the JSON, the URL that was asked, and the `Link` to the next page if there is one."""

    payload: JsonValue
    url: str = "https://provider.invalid/"
    next_link: str | None = None
    is_missing: bool = False
    """What was asked for is not there, and the provider's file says that this is no failure."""
    last: JsonValue = None
    """The last record of the list, once that is known."""
