"""What docs/recipes has to be copied is valid, clean, and does what its packets say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sgagent.cli.main import main
from sgagent.core.model import Policy
from sgagent.policy_test.scenario import parse_packets
from tests.recipes import Recipe, recipes

RECIPES = recipes()
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.name for recipe in RECIPES])


@pytest.fixture
def copied(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Copy a recipe into the working directory."""
    monkeypatch.chdir(tmp_path)
    recipe.write(tmp_path)
    return recipe


@every_recipe
def test_a_recipe_has_its_parts(recipe: Recipe) -> None:
    """A goal, documents, packets of both verdicts, what to look at, and the pitfall; no block is left out."""
    assert re.match(r"# .+\n\nRecipe: \w", recipe.text)
    assert {"packets.yaml"} < set(recipe.files)
    assert all(f"\n**{part}**" in recipe.text for part in ("Look", "Pitfall"))
    assert len(recipe.files) == len(re.findall(r"^```\w+$", recipe.text, re.MULTILINE))
    packets = parse_packets(recipe.files["packets.yaml"].encode(), "packets.yaml").packets
    assert {packet.expected.verdict for packet in packets} == set(Policy)


@every_recipe
@pytest.mark.usefixtures("copied")
def test_check_finds_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """No error and no warning, with the configuration that the page has."""
    assert main(["check", "--config", "sgagent.toml", "--definitions", "groups.d"]) == 0
    assert capsys.readouterr().out == "ok: nothing wrong\n"


@every_recipe
@pytest.mark.usefixtures("copied")
def test_lint_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A reader copies nothing dangerous or without effect."""
    assert main(["lint", "--config", "sgagent.toml", "--exit-code", "groups.d"]) == 0, capsys.readouterr().out


@every_recipe
@pytest.mark.usefixtures("copied")
def test_packets_are_decided_as_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    """By the verdict and the rule."""
    assert main(["test", "--config", "sgagent.toml", "packets.yaml"]) == 0, capsys.readouterr().out
