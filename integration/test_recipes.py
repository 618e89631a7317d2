"""The packets of docs/recipes through the kernel, with the documents of the same page."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.cli.main import main
from tests.recipes import Recipe, recipes

RECIPES = recipes()


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])
def test_the_kernel_decides_as_the_page_says(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every packet passes or not as stated, and none is left out."""
    monkeypatch.chdir(tmp_path)
    recipe.write(tmp_path)
    status = main(["test", "--kernel", "--config", "sgagent.toml", "packets.yaml"])
    printed = capsys.readouterr().out
    assert (status, "left out" in printed) == (0, False), printed
