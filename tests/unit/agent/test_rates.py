"""What was counted in each minute of the last hour."""

from __future__ import annotations

from sgagent.agent.published_status import MOST_KEYS, MOST_STEPS, STEP_SECONDS, Trend
from sgagent.nft.counter_keys import CounterKey, InnerCounter
from sgagent.ports import CounterValue

KEY, OTHER = InnerCounter(interface="eth0"), InnerCounter(interface="eth1")


def totals(**packets: int) -> dict[CounterKey, CounterValue]:
    """Return totals by interface."""
    return {
        InnerCounter(interface=name): CounterValue(packets=number, bytes=0)
        for name, number in packets.items()
    }


def test_a_step_is_what_was_counted_in_a_minute() -> None:
    """Readings in between change nothing, and what was there at first is no growth."""
    begun = Trend().after(totals(eth0=5), 100.0)
    assert begun.packets(KEY) == ()
    assert begun.after(totals(eth0=7), 100.0 + STEP_SECONDS - 1) is begun
    first = begun.after(totals(eth0=7), 100.0 + STEP_SECONDS)
    second = first.after(totals(eth0=7, eth1=3), 100.0 + 2 * STEP_SECONDS)
    assert second.packets(KEY) == (2, 0)
    assert second.packets(OTHER) == (0, 0), "what is new begins with the reading in which it is seen"


def test_minutes_without_a_reading_are_empty() -> None:
    """A loop that was held up finds in the last minute what came in all of them, and shifts nothing."""
    begun = Trend().after(totals(eth0=0), 0.0)
    late = begun.after(totals(eth0=9), 3.5 * STEP_SECONDS)
    assert late.packets(KEY) == (0, 0, 9)
    assert late.after(totals(eth0=10), 4 * STEP_SECONDS).packets(KEY) == (0, 0, 9, 1)


def test_no_more_than_an_hour_is_remembered() -> None:
    """The oldest step makes room, also for very many at once."""
    trend = Trend().after(totals(eth0=0), 0.0)
    for number in range(1, MOST_STEPS + 3):
        trend = trend.after(totals(eth0=number * number), number * STEP_SECONDS)
    assert len(trend.packets(KEY)) == MOST_STEPS
    assert trend.packets(KEY)[-1] == 2 * (MOST_STEPS + 2) - 1
    after_a_day = trend.after(totals(eth0=99_999), 86_400.0)
    assert after_a_day.packets(KEY)[:-1] == (0,) * (MOST_STEPS - 1)


def test_a_step_remembers_what_grew_most() -> None:
    """Its size is bounded, however many counters there are."""
    names = [f"v{number}" for number in range(MOST_KEYS + 10)]
    begun = Trend().after(totals(**dict.fromkeys(names, 0)), 0.0)
    grown = begun.after(totals(**{name: number for number, name in enumerate(names)}), STEP_SECONDS)
    assert len(grown.steps[0]) == MOST_KEYS
    assert grown.packets(InnerCounter(interface="v1")) == (0,)
    assert grown.packets(InnerCounter(interface=names[-1])) == (len(names) - 1,)


def test_what_shrank_is_no_growth() -> None:
    """A total that began anew counts from there."""
    begun = Trend().after(totals(eth0=50), 0.0)
    assert begun.after(totals(eth0=1), STEP_SECONDS).packets(KEY) == (0,)
