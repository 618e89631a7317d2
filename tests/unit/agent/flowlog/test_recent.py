"""The newest flows are remembered, within bounds."""

from __future__ import annotations

from sgagent.agent.flowlog.flow import RecentFlows
from tests.unit.agent.flowlog.flows import dropped


def test_the_newest_are_kept() -> None:
    """What was there longest makes room."""
    recent = RecentFlows(most=3)
    recent.add(dropped(number) for number in range(1, 6))
    assert [flow.number for flow in recent.recent()] == [3, 4, 5]
