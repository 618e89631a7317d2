"""docs/lint.md has each check, with what it finds."""

from __future__ import annotations

import re

import pytest

from sgagent.analysis.lint.findings import CODES
from sgagent.analysis.lint.registry import CHECKS
from sgagent.cli.lint import lines
from tests.corpus import EXAMPLES
from tests.unit.analysis.test_lint import LINT, found_in

ROOT = EXAMPLES.parent
TEXT = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", re.DOTALL | re.MULTILINE)


def test_every_check_is_documented() -> None:
    """In the order of the codes, and no other."""
    assert tuple(code for code, _ in SECTION.findall(TEXT)) == CODES


@pytest.mark.parametrize("code", CODES)
def test_severity_and_summary_are_documented(code: str) -> None:
    """The section of a check begins with them."""
    check = CHECKS[code]
    section = " ".join(dict(SECTION.findall(TEXT))[code].split())
    assert section.startswith(f"{check.severity.value.capitalize()}: {check.summary}.")


@pytest.mark.parametrize("code", CODES)
def test_what_is_found_is_what_is_written_beside_it(code: str) -> None:
    """found.txt of a check is what lint prints of its bad example."""
    first = next(one for one in found_in(LINT / code / "bad.yaml", code) if one.code == code)
    printed = "\n".join(list(lines([first]))[2:]).replace(f"{ROOT}/", "")
    assert (LINT / code / "found.txt").read_text(encoding="utf-8") == f"{printed}\n"
