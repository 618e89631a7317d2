"""Draw how often something was hit in the last hour, a bar for each minute."""

from __future__ import annotations

from collections.abc import Sequence

from sgagent.agent.published_status import MOST_STEPS
from sgagent.agent.time_text import count
from sgagent.agent.web.markup import Element, Node, tag

_BAR, _GAP, _HEIGHT = 2, 0.5, 20
_WIDTH = MOST_STEPS * _BAR


def sparkline(packets: Sequence[int]) -> Node:
    """Return the bars with what they come to in words; where nothing was hit, the words alone.

    Args:
        packets: of each minute, the newest last; none before the first minute is over.
    """
    if not packets:
        return tag("span", "not yet known", class_="quiet")
    span = "in the last hour" if len(packets) == MOST_STEPS else f"in {count(len(packets), 'minute')}"
    if not any(packets):
        return tag("span", f"none {span}", class_="quiet")
    words = f"{count(sum(packets), 'hit')} {span}, at most {max(packets)} in one"
    return tag(
        "svg",
        tag("title", words),
        *_bars(packets),
        class_="sparkline",
        role="img",
        aria_label=words,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        width=_WIDTH,
        height=_HEIGHT,
    )


def _bars(packets: Sequence[int]) -> tuple[Element, Element]:
    """Return the ground and the bars; the newest minute stands at the right end."""
    highest, first = max(packets), MOST_STEPS - len(packets)
    bars = (
        f"M{(first + number) * _BAR} {_HEIGHT}v-{_bar_height(one, highest)}h{_BAR - _GAP}V{_HEIGHT}z"
        for number, one in enumerate(packets)
        if one
    )
    ground = f"M{first * _BAR} {_HEIGHT - 0.5}H{_WIDTH}"
    return tag("path", d=ground, class_="ground"), tag("path", d="".join(bars), class_="bars")


def _bar_height(packets: int, highest: int) -> float:
    """Return the height of a bar; the smallest can still be seen."""
    return round(max(1.5, packets / highest * (_HEIGHT - 1)), 1)
