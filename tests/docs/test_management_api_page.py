"""The page that lists the contract's sections, held against the tests that name them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
NAMED: Final = re.compile(r"Sections? ((?:\d+(?:\.\d+)?(?:, | and )?)+)(?:rows? ((?:\d+(?:, | and )?)+))?")
CONTRADICTIONS: Final = 23
NOT_OURS: Final = 22
"""That the documentation tells of no backfill endpoint."""


def docstrings() -> Iterator[str]:
    for path in (ROOT / "tests/engine/contract").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield ast.get_docstring(node) or ""


def test_every_section_has_a_test() -> None:
    """And no test names a section that the page does not know."""
    page = (ROOT / "docs/management-api.md").read_text()
    listed = re.findall(r"^\| ([\d.]+) \|", page, re.MULTILINE)

    named = {
        number for each in docstrings() for sections, _ in NAMED.findall(each) for number in numbers(sections)
    }

    assert len(listed) == len(set(listed))
    assert named == set(listed)


def test_every_contradiction_has_a_test() -> None:
    """Section 14 by row."""
    rows = {int(row) for each in docstrings() for _, found in NAMED.findall(each) for row in numbers(found)}

    assert rows == {*range(1, CONTRADICTIONS + 1)} - {NOT_OURS}


def numbers(text: str) -> list[str]:
    return re.findall(r"[\d.]*\d", text)
