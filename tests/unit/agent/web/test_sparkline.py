"""Bars say how often something was hit, and so do the words beside them."""

from __future__ import annotations

import re

import pytest

from sgagent.agent.published_status import MOST_STEPS
from sgagent.agent.web.markup import render
from sgagent.agent.web.sparkline import sparkline


@pytest.mark.parametrize(
    ("packets", "words"),
    (
        ((), "not yet known"),
        ((0,), "none in 1 minute"),
        ((0,) * MOST_STEPS, "none in the last hour"),
    ),
)
def test_where_nothing_is_to_be_drawn_words_say_so(packets: tuple[int, ...], words: str) -> None:
    """Nothing known, and nothing hit, are two things."""
    assert render(sparkline(packets)) == f'<span class="quiet">{words}</span>'


def test_each_minute_with_a_hit_has_a_bar() -> None:
    """The newest minute stands at the right, the greatest reaches the top, and the least can be seen."""
    drawn = render(sparkline((0, 1000, 1, 0)))
    bars = re.findall(r"M([\d.]+) 20v-([\d.]+)h1\.5V20z", drawn)
    right = 2 * MOST_STEPS
    assert bars == [(str(right - 6), "19.0"), (str(right - 4), "1.5")]
    assert 'aria-label="1001 hits in 4 minutes, at most 1000 in one"' in drawn
    assert "<title>1001 hits in 4 minutes, at most 1000 in one</title>" in drawn
