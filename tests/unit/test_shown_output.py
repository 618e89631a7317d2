"""docs/ show what commands print of the examples."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from sgagent.cli.main import main
from tests.corpus import EXAMPLES

ROOT = EXAMPLES.parent
COMMAND = re.compile(
    r"^```\n\$ sgagent ((?:check|explain|graph|lint|plan|test) [^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


def shown_in(name: str) -> list[tuple[str, str]]:
    """Return the commands that a document shows, and what it says that they print."""
    return COMMAND.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))


SHOWN = [
    (name, command, printed)
    for name in ("commands.md", "explain.md", "graph.md", "lint.md", "plan.md", "test.md")
    for command, printed in shown_in(name)
    if "--kernel" not in command
]
CANDIDATES = {
    "plan.md": {"[80, 443]": "[80, 443, 8443]", "- 203.0.113.0/24": "- 203.0.113.0/25"},
    "test.md": {"priority: 5": "priority: 20"},
}
"""How a document's candidate differs from the three tiers: by ports and an office, or the order of rules."""


def test_there_is_something_to_see() -> None:
    """Of each command at least once, and the candidate of each document that has one."""
    words = {command.split()[0] for _, command, _ in SHOWN}
    assert words == {"check", "explain", "graph", "lint", "plan", "test"}
    assert {name for name, command, _ in SHOWN if "candidate" in command} == CANDIDATES.keys()


@pytest.mark.parametrize(("name", "command", "printed"), SHOWN, ids=[command for _, command, _ in SHOWN])
def test_what_is_shown_is_what_is_printed(
    name: str,
    command: str,
    printed: str,
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Letter by letter, up to an ellipsis; a drawing beside a document is that of its command."""
    for path in (EXAMPLES / "three-tier" / "groups.d").iterdir():
        text = path.read_text(encoding="utf-8")
        for old, new in CANDIDATES.get(name, {}).items():
            text = text.replace(old, new)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(ROOT)
    arguments, _, file = command.replace("candidate", str(tmp_path)).partition(" > ")
    code = main([*shlex.split(arguments), "--config", os.devnull])
    output, errors = capsys.readouterr()
    assert (code, errors) == (1 if "FAILED" in printed else 0, "")
    if file and (ROOT / file).parent != ROOT:
        assert output == (ROOT / file).read_text(encoding="utf-8")
    elif printed.endswith("…\n"):
        assert output.startswith(printed.removesuffix("…\n"))
    elif not file:
        assert output == printed
