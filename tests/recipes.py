"""The recipes of docs/recipes: what each page has to be copied, and the files that come of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import EXAMPLES

PAGES = EXAMPLES.parent / "docs" / "recipes"
_BLOCK = re.compile(r"^```(?:yaml|toml)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A page, and its blocks by the file that their first line names."""

    name: str
    text: str
    files: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write the files as a reader would, and an empty configuration where the page has none."""
        (folder / "sgagent.toml").touch()
        for name, text in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def recipes() -> list[Recipe]:
    """Return all recipes, in the order of their names."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))}
    return [Recipe(name, text, dict(_BLOCK.findall(text))) for name, text in texts.items()]
