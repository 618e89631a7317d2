"""A copy of the tree with a small change, and tests in it: they show how much a change takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]

Patch = Mapping[str, tuple[tuple[str, str], ...]]
"""By file, texts that occur once in it, and what takes their places."""


def copy_patched(tree: Path, patch: Patch) -> None:
    """Copy package and tests, with their bytecode, which stays valid but for what is patched."""
    being_written = shutil.ignore_patterns("*.pyc.*")
    for name in ("sgagent", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=being_written)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name, changes in patch.items():
        text = (tree / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (tree / name).write_text(text, encoding="utf-8")


def run_tests(tree: Path, *arguments: str, **environment: str) -> str:
    """Run tests of a copy, which have to pass; return what pytest prints."""
    made = subprocess.run(  # noqa: S603 - this Python, and tests of ours
        (sys.executable, "-m", "pytest", "-v", *arguments),
        cwd=tree,
        env=dict(os.environ) | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout[-4000:]
    return made.stdout
