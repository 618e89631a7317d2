"""docs/explain.md and docs/commands.md show what ``explain`` and ``check`` print of the examples."""

from __future__ import annotations

import os

import pytest

from sgagent.cli.main import main
from tests.unit.test_lint_docs import ROOT, shown_in

SHOWN = [*shown_in("explain.md"), *shown_in("commands.md")]


def test_there_is_something_to_see() -> None:
    """Of each command at least once."""
    assert {command.split()[0] for command, _ in SHOWN} == {"check", "explain"}


@pytest.mark.parametrize(("command", "printed"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_is_shown_is_what_is_printed(
    command: str, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents say it letter by letter."""
    monkeypatch.chdir(ROOT)
    assert main([*command.split(), "--config", os.devnull]) == 0
    assert capsys.readouterr().out == printed
