"""docs/test.md shows what ``sgagent test`` prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sgagent.cli.main import main
from tests.corpus import EXAMPLES
from tests.unit.test_lint_docs import ROOT, shown_in


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """Return the three tiers with the drop for abusers behind the accepts."""
    for path in (EXAMPLES / "three-tier" / "groups.d").iterdir():
        text = path.read_text(encoding="utf-8").replace("priority: 5", "priority: 20")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    return tmp_path


SHOWN = [entry for entry in shown_in("test.md") if "--kernel" not in entry[0]]


@pytest.mark.parametrize(("command", "printed"), SHOWN, ids=lambda text: text.split("\n")[0])
def test_what_is_shown_is_what_is_printed(
    command: str,
    printed: str,
    candidate: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The examples pass, and a candidate with the trap of priorities fails as the document says."""
    monkeypatch.chdir(ROOT)
    code = main([*command.replace("candidate", str(candidate)).split(), "--config", os.devnull])
    assert capsys.readouterr().out == printed
    assert code == (1 if "FAILED" in printed else 0)
