"""Reading settings from environment variables: tokens, misspelt names, environments other than our own."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final, TypeVar

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource

S = TypeVar("S", bound=BaseSettings)
TOKEN: Final = re.compile(r"[!-~]{16,}")
SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP)(_\w+)?)?$")
"""Kubernetes sets these for every service, and ours may be called gangway-web."""
TOKEN_SEPARATORS: Final = re.compile(r"[,:]")


def usable_token(text: str) -> str:
    """Return a token without the space around it, which files add. Raises `ValueError`, never quoting it.

    A comma would make two tokens of it in a list, a colon another user in a login, and what is not ASCII
    does not fit into a header.
    """
    token = text.strip()
    if len(token) < 16:
        raise ValueError("expected at least 16 characters")
    if not TOKEN.fullmatch(token) or TOKEN_SEPARATORS.search(token):
        raise ValueError("expected visible ASCII characters without comma, colon and space")
    return token


def unknown_variables(
    names: Iterable[str], *, prefix: str, known: Iterable[str], not_ours: Iterable[str] = ()
) -> dict[str, str | None]:
    """Return the variables with this prefix that no setting reads, each with the known name nearest to it."""
    settings = sorted(known)
    elsewhere = tuple(not_ours)
    own = {name for name in names if name.startswith(prefix) and not name.startswith(elsewhere)}
    unknown = {
        each for each in own if each.partition("__")[0] not in settings and not SERVICE_LINK.search(each)
    }
    bare = {each.removeprefix(prefix): each for each in settings}  # the prefix makes all of them alike
    near = {name: get_close_matches(name.removeprefix(prefix), bare, n=1) for name in sorted(unknown)}
    return {name: bare[found[0]] if found else None for name, found in near.items()}


def warning_of(name: str, nearest: str | None) -> str:
    """One line for the operator."""
    return f"{name} is not a setting" + (f": did you mean {nearest}?" if nearest else "")


def variables_of(cls: type[BaseSettings]) -> set[str]:
    """Return the names of the variables that these settings read."""
    prefix = cls.model_config.get("env_prefix", "")
    return {prefix + name.upper() for name in cls.model_fields}


def settings_in(cls: type[S], environment: Mapping[str, str]) -> S:
    """Read the settings that a process would find in this environment, and nothing of our own."""
    source = EnvSettingsSource(cls)
    source.env_vars = {name.lower(): value for name, value in environment.items()}
    settings = cls.__new__(cls)
    BaseModel.__init__(settings, **source())  # the initializer of settings would add our own environment
    return settings
