"""docs/lint.md says of each check what it is, how much it weighs, and what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sgagent.cli.lint import lines
from sgagent.core.lint.codes import CODES
from sgagent.core.lint.registry import CHECKS
from tests.corpus import EXAMPLES
from tests.unit.core.test_lint import LINT, found_in

TEXT = (EXAMPLES.parent / "docs" / "lint.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", re.DOTALL | re.MULTILINE)


def test_every_check_is_documented() -> None:
    """In the order of the codes, and no other."""
    assert tuple(code for code, _ in SECTION.findall(TEXT)) == CODES


@pytest.mark.parametrize("code", CODES)
def test_what_is_shown_is_what_is_printed(code: str) -> None:
    """Severity and summary are those of the check, the transcript is that of its bad example."""
    section = dict(SECTION.findall(TEXT))[code]
    check = CHECKS[code]
    said = " ".join(section.split())
    assert said.startswith(f"{check.severity.value.capitalize()}: {check.summary}.")
    first = next(one for one in found_in(LINT / code / "bad.yaml", code) if one.code == code)
    printed = "\n".join(list(lines([first]))[2:]).replace(f"{Path(EXAMPLES.parent)}/", "")
    assert f"```\n{printed}\n```" in section
