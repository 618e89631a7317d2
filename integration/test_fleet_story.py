"""The story of a fleet, as a page shows it."""

from __future__ import annotations

import re

import pytest

from integration import fleetstory

_PASSING = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\d+ (seconds?|minutes?)", "SECONDS"),
    (r"process \d+", "PROCESS"),
    (r"revision \d+", "REVISION"),
    (r"(current|refusing) +\d+", r"\1 REVISION"),
    (r"serial \d+", "SERIAL"),
    (r"sha256:[0-9a-f]+", "VERSION"),
    (r"signed by [0-9a-f]+", "SIGNED"),
    (r"root@m\d:", "MEMBER:"),
)
"""What differs from run to run."""


@pytest.mark.long
def test_the_story_ends_well_and_the_page_tells_it() -> None:
    """Each command and each line of output of its beginning is in fleet.md."""
    chapters = fleetstory.tell()
    page = fleetstory.DOCUMENT.read_text(encoding="utf-8")
    written = page.partition("<!-- fleet: begin -->\n")[2].partition("<!-- fleet: end")[0]
    assert masked(written) == masked(fleetstory.markdown(chapters[: fleetstory.SHOWN]))


def masked(text: str) -> list[str]:
    """Return the lines of a text with everything that differs from run to run masked, blanks too."""
    for pattern, word in _PASSING:
        text = re.sub(pattern, word, text)
    return [" ".join(line.split()) for line in text.splitlines()]
