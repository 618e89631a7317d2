"""Show when something was: how long ago, and for programs the time itself."""

from __future__ import annotations

from sgagent.agent.time_text import age, clock_time
from sgagent.agent.web.markup import Element, tag


def moment(seconds: float, now: float) -> Element:
    """Return how long ago a time was; of what is younger than a second, that it is now."""
    ago = max(0.0, now - seconds)
    words = "just now" if ago < 1 else f"{age(ago)} ago"
    return tag("time", words, datetime=clock_time(seconds).replace(" ", "T", 1))
