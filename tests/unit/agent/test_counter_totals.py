"""Totals over changes of the kernel's counters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.counters import CounterTotals
from sgagent.core.counter_keys import CounterKey, InnerCounter, ObservedDropCounter, RuleCounter
from sgagent.core.model import Direction, Policy
from sgagent.ports import CounterValue
from tests.words import rule_counter


def rule(rule_id: str, group: str = "sg-web") -> RuleCounter:
    """Return the key of a rule's counter."""
    return rule_counter(rule_id, group_id=group)


WEB = rule("sgr-web")
KEYS: dict[str, CounterKey] = {"rule/eth0/sgr-web": WEB}


def reading(
    packets: int, octets: int | None = None, name: str = "rule/eth0/sgr-web"
) -> dict[str, CounterValue]:
    """Return what the kernel's counter says; 100 bytes a packet unless said."""
    return {name: CounterValue(packets=packets, bytes=100 * packets if octets is None else octets)}


def packets(counters: CounterTotals, key: CounterKey = WEB) -> int | None:
    """Return the total of packets of a key that has a counter."""
    total = counters.totals.get(key)
    return None if total is None else total.packets


def test_a_total_is_what_the_kernel_counted() -> None:
    """While nothing happens to the table, totals are the kernel's values."""
    counters = CounterTotals()
    for value in (0, 5, 5, 12):
        counters.add(reading(value), KEYS)
        assert counters.totals == {WEB: CounterValue(packets=value, bytes=100 * value)}


@pytest.mark.parametrize("fresh", (reading(3), reading(12, 300)), ids=("packets", "bytes"))
def test_a_counter_that_shrank_goes_on_from_its_total(fresh: dict[str, CounterValue]) -> None:
    """A table that was made anew starts at zero; what was counted before stays."""
    counters = CounterTotals()
    counters.add(reading(12), KEYS)
    counters.add(fresh, KEYS)
    counted = fresh["rule/eth0/sgr-web"]
    assert counters.totals[WEB] == CounterValue(packets=12 + counted.packets, bytes=1200 + counted.bytes)


def test_a_counter_that_was_gone_at_a_reading_is_a_new_one() -> None:
    """What comes back has started at zero, even if it counted more than before meanwhile."""
    counters = CounterTotals()
    counters.add(reading(12), KEYS)
    counters.add({}, KEYS)
    assert packets(counters) == 12
    counters.add(reading(20), KEYS)
    assert packets(counters) == 32


def test_a_counter_that_was_deleted_between_readings_is_a_new_one() -> None:
    """Whoever deletes a counter can say so, as a reading need not show it."""
    counters = CounterTotals()
    counters.add(reading(12), KEYS)
    counters.forget(["rule/eth0/sgr-web", "rule/eth0/never-was"])
    counters.add(reading(20), KEYS)
    assert packets(counters) == 32


def test_a_rule_that_goes_and_comes_back_continues() -> None:
    """Without its rule a total is not shown, but it is kept."""
    counters = CounterTotals()
    counters.add(reading(12), KEYS)
    counters.add({}, {})
    assert counters.totals == {}
    counters.add(reading(1), dict(KEYS))
    assert packets(counters) == 13


def test_a_rule_that_moves_to_another_group_takes_only_new_hits_along() -> None:
    """The kernel's counter stays, but what it counted before belongs to the group that had the rule."""
    counters = CounterTotals()
    counters.add(reading(12), KEYS)
    moved = rule("sgr-web", group="sg-app")
    counters.add(reading(15), {"rule/eth0/sgr-web": moved})
    assert counters.totals == {moved: CounterValue(packets=3, bytes=300)}
    counters.add(reading(15), dict(KEYS))
    assert packets(counters) == 12


def test_a_counter_without_a_key_is_counted_when_it_has_one() -> None:
    """A restarted agent reads the table before it knows what the counters count."""
    counters = CounterTotals()
    counters.add(reading(12), {})
    assert counters.totals == {}
    counters.add(reading(14), KEYS)
    assert packets(counters) == 14


def test_a_key_without_a_counter_has_counted_nothing() -> None:
    """A new rule shows at once, with zero."""
    counters = CounterTotals()
    counters.add({}, KEYS)
    assert packets(counters) == 0


@pytest.mark.parametrize(("now", "total"), ((20, 20), (2, 14)), ids=("goes on", "lost its table"))
def test_a_restarted_agent_goes_on_from_what_was_kept(now: int, total: int) -> None:
    """What the kernel counted meanwhile is added, nothing twice; below what was kept it began anew."""
    before = CounterTotals()
    before.add(reading(12), KEYS)
    after = CounterTotals(before.kept)
    after.add(reading(now), dict(KEYS))
    assert packets(after) == total


def test_only_news_are_to_be_kept() -> None:
    """A quiet second writes no file; that something is counted from now on is news."""
    counters = CounterTotals()
    assert counters.add(reading(0), KEYS)
    assert not counters.add(reading(0), KEYS)
    assert counters.add(reading(5), KEYS)
    assert not counters.add(reading(5), KEYS)
    assert counters.add({}, KEYS)
    assert not counters.add({}, KEYS)


def test_the_totals_that_stopped_first_are_forgotten_first() -> None:
    """What is kept of rules that are gone is bounded, and what counts is never forgotten."""
    counters = CounterTotals(most_retired=2)
    for rule_id in ("a", "b", "c", "d"):
        name = f"rule/eth0/{rule_id}"
        counters.add(reading(1, name=name), {name: rule(rule_id)})
    assert [key for key, _ in counters.kept.totals] == [rule("b"), rule("c"), rule("d")]


def test_a_rule_that_came_back_is_the_last_to_be_forgotten() -> None:
    """The age of a total is when it stopped counting, not when it began."""
    counters = CounterTotals(most_retired=1)
    for rule_id in ("a", "b", "a", "c", "d"):
        name = f"rule/eth0/{rule_id}"
        counters.add(reading(1, name=name), {name: rule(rule_id)})
    assert [key for key, _ in counters.kept.totals] == [rule("c"), rule("d")]


BAN = replace(rule("sgr-ban"), policy=Policy.DROP)
DROPS = ObservedDropCounter(interface="eth0", direction=Direction.INGRESS)
WITH_A_BAN: dict[str, CounterKey] = {**KEYS, "ban": BAN, "inner": InnerCounter(interface="eth0")}
OBSERVED = frozenset({"eth0"})


def counted(web: int, ban: int) -> dict[str, CounterValue]:
    """Return a reading of the counters of a rule that accepts, one that drops, and of members."""
    return {**reading(web), **reading(ban, name="ban"), **reading(web, name="inner")}


def test_what_would_have_been_dropped_is_counted_while_observing() -> None:
    """What drops counted as long as nothing was dropped, beside the rule's own total (§9.1)."""
    counters = CounterTotals()
    counters.add(counted(1, 2), WITH_A_BAN)
    assert DROPS not in counters.totals
    counters.add(counted(9, 5), WITH_A_BAN, OBSERVED)
    assert packets(counters, DROPS) == 3
    counters.add(counted(9, 50), WITH_A_BAN, frozenset({"eth1"}))
    assert packets(counters, DROPS) == 3
    assert packets(counters, BAN) == 50


def test_an_observed_interface_starts_at_zero() -> None:
    """A series that is there from the beginning can be watched for its increase."""
    counters = CounterTotals()
    counters.add(counted(0, 0), WITH_A_BAN, OBSERVED)
    assert packets(counters, DROPS) == 0
    counters.add({}, {}, OBSERVED)
    assert DROPS not in counters.totals


def test_what_would_have_been_dropped_outlives_the_agent() -> None:
    """It goes on after a restart, and is the last to be forgotten."""
    before = CounterTotals()
    before.add(counted(0, 3), WITH_A_BAN, OBSERVED)
    after = CounterTotals(before.kept, most_retired=0)
    after.add(counted(0, 4), dict(WITH_A_BAN), OBSERVED)
    assert packets(after, DROPS) == 4


def times(counters: CounterTotals, key: CounterKey = WEB) -> tuple[float, float | None]:
    """Return since when a key is counted, and when it was hit last."""
    found = counters.times[key]
    return found.counted_since, found.last_hit_at


def test_the_last_hit_is_when_a_counter_grew() -> None:
    """A reading that finds nothing new makes it no younger."""
    counters = CounterTotals()
    for now, value in ((100.0, 0), (101.0, 3), (102.0, 3)):
        counters.add(reading(value), KEYS, now=now)
    assert times(counters) == (100.0, 101.0)


def test_times_go_on_after_a_restart() -> None:
    """An agent that starts again knows since when the kernel has counted, also before it has the keys."""
    before = CounterTotals()
    before.add(reading(3), KEYS, now=100.0)
    after = CounterTotals(before.kept)
    after.add(reading(3), {}, now=200.0)
    after.add(reading(3), KEYS, now=201.0)
    assert times(after) == (100.0, 100.0)


def test_a_rule_that_comes_back_is_counted_anew() -> None:
    """While it was gone nobody counted, so it may not be called unused for that time."""
    counters = CounterTotals()
    counters.add(reading(3), KEYS, now=100.0)
    counters.add({}, {}, now=200.0)
    assert counters.add(reading(0), dict(KEYS), now=300.0)
    assert times(counters) == (300.0, 100.0)


def test_what_was_read_stays_as_it_was() -> None:
    """Readers in other threads keep what they have; where nothing changed, the same is read again."""
    counters = CounterTotals()
    counters.add(reading(1), KEYS, now=10.0)
    totals, times = counters.totals, counters.times
    counters.add(reading(1), KEYS, now=20.0)
    assert counters.totals is totals
    assert counters.times is times
    counters.add(reading(4), KEYS, now=30.0)
    assert totals[WEB].packets == 1
    assert packets(counters) == 4
    assert times[WEB].last_hit_at == 10.0
    assert counters.times[WEB].last_hit_at == 30.0


def test_totals_follow_what_is_counted() -> None:
    """What comes to be counted, or no longer is, is told at the next look."""
    counters = CounterTotals()
    app = rule("sgr-app")
    counters.add(reading(1), KEYS)
    assert set(counters.totals) == {WEB}
    counters.add(reading(1), {**KEYS, "rule/eth0/sgr-app": app})
    assert set(counters.totals) == {WEB, app}
    counters.add(reading(1), {"rule/eth0/sgr-app": app})
    assert set(counters.totals) == {app}
    assert set(counters.times) == {app}
