"""The page for operators knows every trouble that the engine tells of."""

import re
from pathlib import Path

from engine.health import TroubleCode

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_trouble_of_the_engine_is_documented_and_nothing_else() -> None:
    """Whoever is woken by a code finds what to do about it."""
    engine = PAGE.read_text().partition("## The engine")[2]

    assert re.findall(r"^\| `([a-z_]+)` \|", engine, flags=re.MULTILINE) == list(TroubleCode)
