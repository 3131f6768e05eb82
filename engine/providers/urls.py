"""Where requests may go: base URLs with a customer's own part, and links that a provider sends."""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import httpx
from pydantic import JsonValue

from engine.providers.answer import StrayLinkError

PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
HOST: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+", re.ASCII)


class ForbiddenUrlError(Exception):
    """A credential's properties would send requests somewhere that is not the provider's."""


def placeholders(template: str) -> tuple[str, ...]:
    """The names in braces, each once and in order."""
    return tuple(dict.fromkeys(PLACEHOLDER.findall(template)))


def fill(template: str, values: Mapping[str, JsonValue], safe: str = "/") -> str:
    """The template with values that cannot become more than a part of a path."""
    return PLACEHOLDER.sub(lambda found: quote(str(values[found[1]]), safe=safe), template)


def check_segments(template: str, properties: Mapping[str, JsonValue]) -> None:
    """Refuse properties that would lead somewhere else than down the path that the template shows."""
    if any(str(properties.get(name, "")) in {"", ".", ".."} for name in placeholders(template)):
        raise ForbiddenUrlError(f"does not make a path of {template}")


def resolve(template: str, hosts: Sequence[str], properties: Mapping[str, JsonValue]) -> str:
    """The base URL of one credential; raises unless it is https and on one of the provider's hosts.

    A URL without placeholders is the provider's or the operator's own, and neither is doubted.
    """
    if not placeholders(template):
        return template
    try:
        filled = PLACEHOLDER.sub(lambda found: str(properties[found[1]]), template)
        url = httpx.URL(filled.rstrip("/"))
        host = url.host  # reads punycode, which may be malformed
    except (KeyError, UnicodeError, httpx.InvalidURL):
        raise ForbiddenUrlError(f"does not make a URL of {template}") from None
    is_plain = url.scheme == "https" and url.port is None and not url.userinfo
    is_bare = url.raw_path in {b"", b"/"} and not url.fragment
    if not (is_plain and is_bare and any(_is_at(host, pattern) for pattern in hosts)):
        raise ForbiddenUrlError(f"must lead to {' or '.join(hosts)}")
    return f"https://{host}"


def path_of_link(asked: str, link: str) -> str:
    """Path and query of a link that stays where the request went; raises for any other."""
    here = httpx.URL(asked)
    try:
        there = here.join(link)
        is_stray = _origin(there) != _origin(here) or there.userinfo
    except (UnicodeError, httpx.InvalidURL):
        raise StrayLinkError("sent a link to the next page that is no URL") from None
    if is_stray:
        raise StrayLinkError(f"sent a link to the next page that leaves {here.host}; it was not followed")
    return there.raw_path.decode("ascii")


def on_origin_of(base_url: str, path: str) -> str:
    """A path, as a link gave it, on the scheme, host and port of a base URL."""
    base = httpx.URL(base_url)
    return str(base.copy_with(raw_path=path.encode("ascii")))


def path_of(url: str) -> str:
    """Path and query of a URL, or of what is no more than a path already."""
    return httpx.URL(url).raw_path.decode("ascii")


def _is_at(host: str, pattern: str) -> bool:
    """`*.example.com` stands for every host below example.com."""
    if HOST.fullmatch(host) is None:
        return False
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
