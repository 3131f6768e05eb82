"""Addresses of HTTP services, and which of them a token may reach unencrypted."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

PRIVATE_SUFFIXES: Final = (".localhost", ".internal", ".svc", ".cluster.local", ".test")


def http_host(url: str) -> str | None:
    """Return the host of an HTTP URL, or nothing if it is no such URL."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # a port that is none
        return None
    return (parts.hostname or None) if is_usable else None


def is_private_host(host: str) -> bool:
    """Return whether the name leads to this machine, or can only be resolved within a private network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host.endswith(PRIVATE_SUFFIXES)
