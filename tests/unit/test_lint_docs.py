"""docs/lint.md and docs/plan.md show what the commands print, and docs/lint.md has each check."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sgagent.analysis.lint.findings import CODES
from sgagent.analysis.lint.registry import CHECKS
from sgagent.cli.lint import lines
from sgagent.cli.main import main
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


COMMAND = re.compile(
    r"^```\n\$ sgagent ((?:check|explain|graph|lint|plan|test) [^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


def shown_in(name: str) -> list[tuple[str, str]]:
    """Return the commands that a document shows, and what it says that they print."""
    return COMMAND.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("command", "printed"), shown_in("lint.md"), ids=lambda text: text.split("\n")[0])
def test_lint_prints_what_is_shown(
    command: str, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples are found fault with as docs/lint.md says."""
    monkeypatch.chdir(ROOT)
    assert main([*command.split(), "--config", os.devnull]) == 0
    assert capsys.readouterr().out == printed


def test_plan_prints_what_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate is the example with another port of the web tier and half of an office's network."""
    ((command, printed),) = shown_in("plan.md")
    for path in (EXAMPLES / "three-tier" / "groups.d").iterdir():
        text = path.read_text(encoding="utf-8").replace("[80, 443]", "[80, 443, 8443]")
        (tmp_path / path.name).write_text(text.replace("- 203.0.113.0/24", "- 203.0.113.0/25"))
    monkeypatch.chdir(ROOT)
    main([*command.replace("candidate", str(tmp_path)).split(), "--config", os.devnull])
    assert capsys.readouterr().out.startswith(printed.removesuffix("…\n"))
