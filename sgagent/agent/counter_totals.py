"""Monotonic totals over the kernel's counters.

A counter of the kernel restarts at zero when its table is created again, or when its rule was removed and
added. This module keeps the total of each key since boot, and the last value of each kernel counter. It adds
only the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import is_not
from types import MappingProxyType

from sgagent.agent.state.hit_times import HitRecord, HitTimes
from sgagent.nft.counter_keys import CounterKey, ObservedDropCounter, counter_name, observed_drop
from sgagent.ports import CounterValue

MOST_RETIRED = 10_000
"""Totals that are kept of what no longer counts; beyond, those that stopped first are forgotten."""


@dataclass(frozen=True, slots=True)
class KeptCounters:
    """What must outlive the agent for totals to go on. What is zero is left out."""

    totals: tuple[tuple[CounterKey, CounterValue], ...] = ()
    """Those that stopped counting first come first."""

    seen: tuple[tuple[str, CounterValue], ...] = ()
    """The kernel's counters by name, and the values that are in the totals already."""

    times: tuple[tuple[CounterKey, HitTimes], ...] = ()
    """Since when each is counted, and when it last grew; of another boot, all that is left."""


_NOTHING = CounterValue(packets=0, bytes=0)
_NOTHING_KEPT = KeptCounters()


class Accounting:
    """Add up what the kernel counted. Belongs to one thread."""

    def __init__(self, kept: KeptCounters = _NOTHING_KEPT, most_retired: int = MOST_RETIRED) -> None:
        """Go on from what was kept; nothing kept is a fresh start."""
        self._totals = dict(kept.totals)
        self._seen = dict(kept.seen)
        self._keys: Mapping[str, CounterKey] = {}
        self._former = _keys_by_name(kept)
        """What counters counted for an earlier agent."""

        self._reading: Mapping[str, CounterValue] = {}
        """The last reading: a value object that is unchanged in the next one is already in the totals."""

        self._most_retired = most_retired
        self._record = HitRecord(kept.times)
        self._observed: frozenset[str] = frozenset()
        self._drop_of: Mapping[CounterKey, ObservedDropCounter] = {}
        self._shown: Mapping[CounterKey, CounterValue] | None = None
        """The totals as they were read last; None once they have changed."""

    def take_in(
        self,
        reading: Mapping[str, CounterValue],
        keys: Mapping[str, CounterKey],
        observed: frozenset[str] = frozenset(),
        now: float = 0.0,
    ) -> bool:
        """Add what was counted since the last reading, and return whether the state to store has changed.

        Args:
            reading: every counter of the table.
            keys: the keys of the counters, by name. The packets of a counter without a key are added once it
                has one.
            observed: interfaces in observe mode since the last reading (§9.1).
            now: seconds since the epoch.
        """
        if observed != self._observed:
            self._observed, self._shown = observed, None
        is_news, last = False, self._reading
        if keys is not self._keys:
            last = {}
            is_news = self._record.follow(keys.values(), now)
            self._keys, self._shown = keys, None
            self._drop_of = {key: drop for key in keys.values() if (drop := observed_drop(key)) is not None}
            self._retire()
        gone = self._seen.keys() - reading.keys()
        self.forget(gone)
        changed = compress(reading.items(), map(is_not, reading.values(), map(last.get, reading)))
        new = [(name, value) for name, value in changed if self._is_new(name, value)]
        for name, value in new:
            counted = _since(self._seen.get(name, _NOTHING), value)
            self._add(keys[name], counted)
            self._record.hit(keys[name], now)
            drop = self._drop_of.get(keys[name])
            if drop is not None and drop.interface in observed:
                self._add(drop, counted)
            self._seen[name] = value
        self._reading = dict(reading)
        return is_news or bool(gone or new)

    def take_last(self, reading: Mapping[str, CounterValue], leaving: Iterable[str], now: float) -> bool:
        """Add what counters without a key have counted for an earlier agent, as they are about to be deleted.

        Args:
            reading: every counter of the table; it was taken in.
            leaving: the names of those that are about to be deleted.
            now: seconds since the epoch.

        Returns:
            Whether anything is to be kept anew.
        """
        is_news = False
        for name in leaving:
            key, value, seen = self._former.get(name), reading.get(name), self._seen.get(name, _NOTHING)
            if name not in self._keys and key is not None and value is not None and value != seen:
                self._add(key, _since(seen, value))
                self._record.hit(key, now)
                self._seen[name], is_news = value, True
        return is_news

    def forget(self, names: Iterable[str]) -> None:
        """Record that counters were deleted: if there are such again, they have started at zero."""
        self._reading = {}
        for name in names:
            self._seen.pop(name, None)

    @property
    def totals(self) -> Mapping[CounterKey, CounterValue]:
        """Return the totals of what has counters now, and of what would have been dropped there."""
        if self._shown is None:
            keys = (*self._keys.values(), *self._drops())
            self._shown = MappingProxyType({key: self._totals.get(key, _NOTHING) for key in keys})
        return self._shown

    @property
    def times(self) -> Mapping[CounterKey, HitTimes]:
        """Return since when what has counters now is counted, and when it last grew."""
        return self._record.times

    @property
    def kept(self) -> KeptCounters:
        """Return what must outlive the agent."""
        return KeptCounters(
            totals=tuple(self._totals.items()), seen=tuple(self._seen.items()), times=self._record.kept
        )

    def _drops(self) -> Iterator[ObservedDropCounter]:
        """Yield the keys of what is, or ever was, only observed where something counts."""
        for drop in frozenset(self._drop_of.values()):
            if drop.interface in self._observed or drop in self._totals:
                yield drop

    def _is_new(self, name: str, value: CounterValue) -> bool:
        """Return whether a counter has a key and another value than it had."""
        return value != self._seen.get(name, _NOTHING) and name in self._keys

    def _add(self, key: CounterKey, counted: CounterValue) -> None:
        self._shown = None
        total = self._totals.get(key, _NOTHING)
        self._totals[key] = CounterValue(
            packets=total.packets + counted.packets, bytes=total.bytes + counted.bytes
        )

    def _retire(self) -> None:
        """Put what has counters behind what no longer has, and forget the first of too many of the latter."""
        live = frozenset((*self._keys.values(), *self._drops()))
        retired = [key for key in self._totals if key not in live]
        kept = retired[max(0, len(retired) - self._most_retired) :]
        order = (*kept, *(key for key in self._totals if key in live))
        self._totals = {key: self._totals[key] for key in order}
        self._record.forget_all_but(order)


def _keys_by_name(kept: KeptCounters) -> Mapping[str, CounterKey]:
    """Return by name what counters counted, the newest where a rule or default changed its policy."""
    newest_last = sorted(kept.times, key=lambda pair: pair[1].counted_since)
    return {counter_name(key): key for key, _ in newest_last if not isinstance(key, ObservedDropCounter)}


def _since(seen: CounterValue, value: CounterValue) -> CounterValue:
    """Return what was counted between two readings; a counter that shrank was made anew and began at zero."""
    if value.packets < seen.packets or value.bytes < seen.bytes:
        return value
    return CounterValue(packets=value.packets - seen.packets, bytes=value.bytes - seen.bytes)
