"""docs/graph.md and docs/graph.svg show what ``sgagent graph`` prints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from sgagent.cli.main import main
from tests.corpus import EXAMPLES
from tests.unit.test_lint_docs import ROOT, shown_in

COMMANDS = shown_in("graph.md")


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """Return the three tiers with another port of the web tier."""
    for path in (EXAMPLES / "three-tier" / "groups.d").iterdir():
        text = path.read_text(encoding="utf-8").replace("[80, 443]", "[443, 8443]")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("command", "printed"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_what_is_shown_is_what_is_printed(
    command: str,
    printed: str,
    candidate: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The drawing beside the document is that of the command that it shows."""
    monkeypatch.chdir(ROOT)
    arguments, _, file = command.replace("candidate", str(candidate)).partition(" > ")
    assert main([*shlex.split(arguments), "--config", os.devnull]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    if not file:
        assert output == printed
    elif (ROOT / file).parent != ROOT:
        assert output == (ROOT / file).read_text(encoding="utf-8")
