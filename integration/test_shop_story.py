"""The story of the shop, as its page shows it."""

from __future__ import annotations

import re

import pytest

from integration import fleetstory, shopstory
from integration.machine import why_not
from integration.package import why_not as why_no_package
from integration.story import without_passing

_REASON = why_not() or why_no_package()


@pytest.mark.long
@pytest.mark.machines
@pytest.mark.skipif(bool(_REASON), reason=f"no machine with a package: {_REASON}")
def test_the_story_ends_well_and_the_page_tells_it() -> None:
    """Each line is that of the page, but for times, how often a client tried, and the order of drops."""
    chapters = shopstory.tell()
    page = shopstory.DOCUMENT.read_text(encoding="utf-8")
    written = page.partition("<!-- shop: begin -->\n")[2].partition("<!-- shop: end")[0]
    assert masked(written) == masked(fleetstory.markdown(chapters))


def masked(text: str) -> list[str]:
    """Return the lines of a text in order, each once, with everything that differs from run to run masked.

    One that tries again a second later is one line or two.
    """
    lines = (re.sub(r"^\d\d:\d\d:\d\d +\d+", "TIME PACKETS", line) for line in text.splitlines())
    return sorted(set(map(without_passing, lines)))
