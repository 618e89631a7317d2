"""The story of a machine, from the installation of the package to its removal, as two pages show it."""

from __future__ import annotations

import re

import pytest

from integration import story
from integration.machine import why_not
from integration.package import ROOT, why_not as why_no_package
from integration.story import without_passing

_REASON = why_not() or why_no_package()
_LEFT_OUT = "…"
"""Stands in the runbook for lines of the story."""


@pytest.mark.long
@pytest.mark.machines
@pytest.mark.skipif(bool(_REASON), reason=f"no machine with a package: {_REASON}")
def test_the_story_ends_well_and_the_pages_tell_it() -> None:
    """Each command and each line of output in the runbook is of the story, and story.md has them all."""
    chapters = story.tell()
    page = story.DOCUMENT.read_text(encoding="utf-8")
    written = page.partition("begin -->\n")[2].partition("<!-- story: end")[0]
    assert masked(written) == masked(story.markdown(chapters))
    lines = (line for chapter in chapters for line in chapter.lines)
    told = {without_passing(line.removeprefix("root@web:~")) for line in lines}
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "runbook.md").read_text(), re.DOTALL)
    shown = [without_passing(line) for line in "".join(blocks).splitlines() if line != _LEFT_OUT]
    assert len(shown) > 30
    assert [line for line in shown if line not in told] == []


def masked(text: str) -> list[str]:
    """Return the lines of a text with everything that differs from run to run masked."""
    return [without_passing(line) for line in text.splitlines()]
