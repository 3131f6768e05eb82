"""Refusals that a provider hides in the body of an answer whose status says success, or too little."""

import json
from collections.abc import Mapping

from pydantic import Field, JsonValue

from engine.providers.part import Part
from engine.providers.paths import dig


class Faults(Part):
    """Where an answer lists what went wrong, and which status each code amounts to."""

    list: str = "errors"
    """What is there, unless it is empty, is the faults."""
    code: str
    """Where a fault holds its code; dots go deeper."""
    statuses: Mapping[str, int] = Field(default_factory=dict)
    otherwise: int = Field(default=400, ge=400)
    """What a code amounts to that is not among them."""

    def status_of(self, payload: JsonValue) -> int | None:
        """The status that a successful answer should have had; nothing when it tells of no fault."""
        codes = self._codes(payload)
        return self._known(codes) or self.otherwise if codes else None

    def status_in(self, body: str) -> int | None:
        """The status that a refusal with this body amounts to, if it says more than its own does."""
        try:
            return self._known(self._codes(json.loads(body)))
        except ValueError:
            return None

    def _known(self, codes: tuple[str, ...]) -> int | None:
        return next((self.statuses[code] for code in codes if code in self.statuses), None)

    def _codes(self, payload: JsonValue) -> tuple[str, ...]:
        found = dig(payload, self.list)
        return tuple(str(dig(each, self.code)) for each in found) if isinstance(found, list) else ()
