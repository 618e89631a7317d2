"""Remember how fast each counter grew in the last hour, a reading a minute, within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from types import MappingProxyType

from sgagent.core.kernel.counters import CounterKey
from sgagent.ports import CounterValue

STEP_SECONDS = 60.0
"""Between two readings."""

MOST_STEPS = 60
"""That are remembered."""

MOST_KEYS = 2_000
"""Counters of which a step remembers something: those that grew most. The others are not drawn."""

_NOTHING: Mapping[CounterKey, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trend:
    """What was counted in each of the last minutes, the oldest first. What did not grow takes no room."""

    steps: tuple[Mapping[CounterKey, int], ...] = ()
    _read: Mapping[CounterKey, int] = field(default_factory=dict)
    """The packets at the end of the newest step."""

    _read_at: float | None = None
    """By the monotonic clock."""

    def after(self, totals: Mapping[CounterKey, CounterValue], now: float) -> Trend:
        """Return the trend after a reading; the same unless a step has passed.

        Args:
            totals: what was counted. What is new among it begins with this reading.
            now: seconds that never go back.
        """
        if self._read_at is None:
            return Trend((), _packets(totals), now)
        passed = int((now - self._read_at) // STEP_SECONDS)
        if passed < 1:
            return self
        missed = (_NOTHING,) * min(passed - 1, MOST_STEPS)
        steps = (*self.steps, *missed, self._growth(totals))[-MOST_STEPS:]
        return Trend(steps, _packets(totals), self._read_at + passed * STEP_SECONDS)

    def packets(self, key: CounterKey) -> tuple[int, ...]:
        """Return what a counter counted in each step."""
        return tuple(step.get(key, 0) for step in self.steps)

    def _growth(self, totals: Mapping[CounterKey, CounterValue]) -> Mapping[CounterKey, int]:
        return MappingProxyType(dict(nlargest(MOST_KEYS, self._grown(totals), key=lambda item: item[1])))

    def _grown(self, totals: Mapping[CounterKey, CounterValue]) -> Iterator[tuple[CounterKey, int]]:
        for key, total in totals.items():
            growth = total.packets - self._read.get(key, total.packets)
            if growth > 0:
                yield key, growth


def _packets(totals: Mapping[CounterKey, CounterValue]) -> Mapping[CounterKey, int]:
    return {key: total.packets for key, total in totals.items()}
