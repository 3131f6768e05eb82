"""The page of settings and the settings themselves say the same."""

import re
from pathlib import Path

from worker.settings import PREFIX, Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_is_documented_and_nothing_else() -> None:
    """Operators find each setting on one page, and no setting there that does not exist."""
    documented = set(re.findall(rf"^\| `{PREFIX}([A-Z_]+)`", PAGE.read_text(), flags=re.MULTILINE))

    assert documented == {name.upper() for name in Settings.model_fields}
