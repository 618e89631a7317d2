"""The newest flows are remembered, within bounds."""

from __future__ import annotations

from sgagent.agent.flowlog.flow import RecentFlows
from tests.unit.agent.flowlog.flows import dropped


def test_the_newest_are_kept() -> None:
    """What was there longest makes room."""
    recent = RecentFlows(most=3)
    recent.add(dropped(number) for number in range(1, 6))
    assert [flow.number for flow in recent.recent()] == [3, 4, 5]
    assert [flow.number for flow in recent.recent(most=2)] == [4, 5]


def test_a_reader_goes_on_where_it_was() -> None:
    """Who has seen a flow gets those that came after it; who was away for too long, those that are left."""
    recent = RecentFlows(most=3)
    assert recent.after(0) == ()
    recent.add([dropped(1), dropped(2)])
    assert [flow.number for flow in recent.after(1)] == [2]
    assert recent.after(2) == ()
    recent.add(dropped(number) for number in range(3, 9))
    assert [flow.number for flow in recent.after(2)] == [6, 7, 8]
