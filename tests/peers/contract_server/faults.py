"""Trouble on request: which fault befalls a request, drawn from a seeded generator."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from email.utils import formatdate
from enum import StrEnum
from math import ceil
from random import Random
from typing import Any

from .errors import invalid
from .validation import JsonObject


class Fault(StrEnum):
    """What may befall a request."""

    RESET = "reset"
    RATE_429 = "rate_429"
    FAIL_500 = "fail_500"
    LATE_COMMIT = "late_commit"
    LOSE_REPLY = "lose_reply"


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """How often each fault happens, as a rate from 0 to 1, and its details."""

    reset: float = 0.0
    rate_429: float = 0.0
    fail_500: float = 0.0
    late_commit: float = 0.0
    lose_reply: float = 0.0
    late_commit_s: float = 5.0
    retry_after: str = "seconds"
    retry_after_s: float = 1.0
    latency_ms: float = 0.0
    only: tuple[str, ...] = ()

    def rate(self, fault: Fault) -> float:
        """Return how often a fault happens."""
        rate: float = getattr(self, fault.value)
        return rate

    def changed(self, changes: Mapping[str, Any]) -> "FaultSettings":
        """Return these settings with some changed, refusing what makes no sense."""
        if errors := {name: [reason] for name, value in changes.items() if (reason := against(name, value))}:
            raise invalid({**errors})
        only = {"only": tuple(changes["only"])} if "only" in changes else {}
        return replace(self, **{**changes, **only})

    def as_json(self) -> JsonObject:
        """Show the settings."""
        return asdict(self)


class Dice:
    """Draws faults; equal seeds and equal requests give equal faults."""

    def __init__(self, settings: FaultSettings, seed: int) -> None:
        self.settings = settings
        self._random = Random(f"faults {seed}")  # noqa: S311 - repeatable, nothing to guess

    def draw(self, route: str) -> Fault | None:
        """Return the fault that befalls a request to a route."""
        if self.settings.only and route not in self.settings.only:
            return None
        return next((fault for fault in Fault if self._strikes(fault, route)), None)

    def retry_after(self) -> str:
        """Return the header in the form that is set."""
        if self.settings.retry_after == "date":
            return formatdate(ceil(time.time() + self.settings.retry_after_s), usegmt=True)
        return str(ceil(self.settings.retry_after_s))

    def _strikes(self, fault: Fault, route: str) -> bool:
        rate = self.settings.rate(fault)
        if rate <= 0 or (fault is Fault.LATE_COMMIT and not route.startswith("POST ")):
            return False
        return self._random.random() < rate


def against(name: str, value: object) -> str | None:
    """Say what is wrong with one setting."""
    if name not in FaultSettings.__dataclass_fields__:
        return "is not a known field"
    if name == "retry_after":
        return None if value in ("seconds", "date") else "must be seconds or date"
    if name == "only":
        is_fine = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        return None if is_fine else "must be an array of routes"
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        return "must be a number of at least 0"
    return "must be a rate from 0 to 1" if name in tuple(Fault) and value > 1 else None
