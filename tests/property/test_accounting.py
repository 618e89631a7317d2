"""Totals over any history of the kernel's counters."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sgagent.agent.counters import CounterTotals
from sgagent.agent.state.counter_file import KeptCounters
from sgagent.core.counter_keys import CounterKey, InnerCounter
from sgagent.ports import CounterValue

KEYS: dict[str, CounterKey] = {f"inner/eth{n}": InnerCounter(interface=f"eth{n}") for n in range(3)}
NAMES = st.sampled_from(sorted(KEYS))
NOTHING = CounterValue(packets=0, bytes=0)


class Kernel(RuleBasedStateMachine):
    """Let counters count, vanish and come back, and the agent read, restart and die."""

    def __init__(self) -> None:
        """Start with an empty table and an agent that has seen nothing."""
        super().__init__()
        self.table: dict[str, CounterValue] = {}
        self.keys: dict[str, CounterKey] = {}
        self.counters = CounterTotals()
        self.saved = KeptCounters()
        self.shown: dict[CounterKey, CounterValue] = {}
        self.truth = dict.fromkeys(KEYS.values(), 0)

    @rule(name=NAMES)
    def add(self, name: str) -> None:
        """Apply a policy that has the rule."""
        self.table.setdefault(name, NOTHING)
        self.keys = self.keys | {name: KEYS[name]}

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        """Apply a policy without the rule, as the agent does it: reading before, and saving after."""
        self.read()
        self.table.pop(name, None)
        self.keys = {other: key for other, key in self.keys.items() if other != name}
        self.counters.forget([name])
        self.saved = self.counters.kept

    @precondition(lambda self: self.table)
    @rule(name=NAMES, packets=st.integers(1, 5))
    def count(self, name: str, packets: int) -> None:
        """Send packets."""
        if name in self.table:
            value = self.table[name]
            self.table[name] = CounterValue(packets=value.packets + packets, bytes=value.bytes + 60 * packets)
            self.truth[KEYS[name]] += packets

    @rule()
    def read(self) -> None:
        """Read the counters, as the agent does every second, and save what is to be kept."""
        if self.counters.add(self.table, self.keys):
            self.saved = self.counters.kept

    @rule()
    def flush(self) -> None:
        """Lose the table to someone else, who can take what was not read yet."""
        for name, value in self.table.items():
            seen = dict(self.counters.kept.seen).get(name, NOTHING)
            self.truth[KEYS[name]] -= value.packets - seen.packets
        self.table = {}
        self.read()
        self.table = dict.fromkeys(self.keys, NOTHING)

    @rule()
    def kill(self) -> None:
        """Kill the agent and start it again, with what it saved last."""
        self.counters = CounterTotals(self.saved)
        self.counters.add(self.table, {})

    @invariant()
    def totals_never_go_back(self) -> None:
        """What was shown once is the least that is shown ever after."""
        for key, total in self.counters.totals.items():
            before = self.shown.get(key, NOTHING)
            assert total.packets >= before.packets
            assert total.bytes >= before.bytes
            self.shown[key] = total

    @rule()
    def nothing_is_counted_twice_or_lost(self) -> None:
        """After a reading, totals are what was sent."""
        self.read()
        for key, total in self.counters.totals.items():
            assert total.packets == self.truth[key]


TestKernel = Kernel.TestCase

VALUES = st.builds(CounterValue, packets=st.integers(0, 9), bytes=st.integers(0, 9))
READINGS = st.dictionaries(NAMES, VALUES)


@given(st.lists(st.tuples(READINGS, st.booleans(), st.sets(NAMES))))
def test_totals_do_not_go_back(history: list[tuple[dict[str, CounterValue], bool, set[str]]]) -> None:
    """For any readings, deletions and restarts, even impossible ones, no total shrinks."""
    counters, shown = CounterTotals(), dict.fromkeys(KEYS.values(), NOTHING)
    for reading, is_restarted, deleted in history:
        if is_restarted:
            counters = CounterTotals(counters.kept)
        counters.forget(deleted)
        counters.add(reading, KEYS)
        for key, total in counters.totals.items():
            assert total.packets >= shown[key].packets
            assert total.bytes >= shown[key].bytes
            shown[key] = total


@pytest.mark.parametrize("most_retired", (0, 1))
@given(history=st.lists(st.dictionaries(NAMES, VALUES)))
def test_what_counts_is_never_forgotten(most_retired: int, history: list[dict[str, CounterValue]]) -> None:
    """However few totals of the past are kept, those of the present go on."""
    counters = CounterTotals(most_retired=most_retired)
    for reading in history:
        keys = {name: KEYS[name] for name in reading}
        before = counters.totals
        counters.add(reading, keys)
        for key in keys.values():
            assert counters.totals[key].packets >= before.get(key, NOTHING).packets
        assert len(counters.kept.totals) <= len(keys) + most_retired
