"""Sparklines draw the hits of each minute, and say them in words."""

from __future__ import annotations

import re

import pytest

from sgagent.agent.published_status import MOST_STEPS
from sgagent.agent.web.rules import draw_sparkline, excerpt
from sgagent.core.errors import Origin
from sgagent.documents import DocumentFile


@pytest.mark.parametrize(
    ("packets", "words"),
    (((), "not yet known"), ((0,), "none in 1 minute"), ((0,) * MOST_STEPS, "none in the last hour")),
)
def test_without_a_hit_there_are_only_words(packets: tuple[int, ...], words: str) -> None:
    """They distinguish "no hits" from "not known"."""
    sparkline = draw_sparkline(packets)
    assert (sparkline.words, sparkline.bars) == (words, "")
    assert bool(sparkline.ground) is bool(packets)


def test_each_minute_with_a_hit_has_a_bar() -> None:
    """The newest minute is at the right end, the largest reaches the top, and the smallest is visible."""
    sparkline = draw_sparkline((0, 1000, 1, 0))
    bars = re.findall(r"M([\d.]+) 20v-([\d.]+)h1\.5V20z", sparkline.bars)
    right = 2 * MOST_STEPS
    assert bars == [(str(right - 6), "19.0"), (str(right - 4), "1.5")]
    assert sparkline.ground == f"M0 19.5H{right}"
    assert sparkline.words == "1001 hits in 4 minutes, at most 1000 in one"


def test_lines_are_counted_as_documents_count_them() -> None:
    """A line separator of Unicode in a text begins no line; one of Windows ends with two characters."""
    written = 'a: "one\u2028two\u2029three\x85four"\r\nb: 1\r\n'.encode()
    files = (DocumentFile("a.yaml", written),)
    lines = list(excerpt(files, Origin(file="a.yaml", line=2)))
    assert [(number, is_there) for number, _, is_there in lines][:2] == [(1, False), (2, True)]
    assert lines[1][1] == "b: 1"
