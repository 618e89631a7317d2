"""Remember since when each counter counts and when it last grew, over restarts and boots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sgagent.nft.counter_keys import CounterKey


@dataclass(frozen=True, slots=True, kw_only=True)
class HitTimes:
    """Two moments, in seconds since the epoch."""

    counted_since: float
    """From when on it was counted without a gap that is known."""

    last_hit_at: float | None = None
    """None where it was never hit in that time, or before."""


class HitRecord:
    """Note when counters grow. Belongs to one thread."""

    def __init__(self, kept: Iterable[tuple[CounterKey, HitTimes]] = ()) -> None:
        """Go on from what was kept."""
        self._times = dict(kept)
        self._live: frozenset[CounterKey] | None = None
        self._shown: Mapping[CounterKey, HitTimes] | None = None
        """The times as they were read last; None once they have changed."""

    def follow(self, keys: Iterable[CounterKey], now: float) -> bool:
        """Take note of what is counted from now on, and return whether that is news.

        What comes back after it was gone is counted since now. What an agent finds when it starts has been
        counted by the kernel all the while.

        Args:
            keys: all that has counters.
            now: seconds since the epoch.
        """
        live = frozenset(keys)
        if not live and self._live is None:
            return False  # nothing was enforced yet, so nothing was taken away either
        known = self._times.keys() if self._live is None else self._live
        fresh = live - known
        for key in fresh:
            before = self._times.get(key)
            last = before.last_hit_at if before else None
            self._times[key] = HitTimes(counted_since=now, last_hit_at=last)
        self._live, self._shown = live, None
        return bool(fresh)

    def hit(self, key: CounterKey, now: float) -> None:
        """Take note that a counter grew since it was read before."""
        before = self._times.get(key)
        since = before.counted_since if before else now
        self._times[key], self._shown = HitTimes(counted_since=since, last_hit_at=now), None

    def forget_all_but(self, keys: Iterable[CounterKey]) -> None:
        """Forget what neither has a counter nor is among the keys."""
        self._shown = None
        kept = frozenset(keys) | (self._live or frozenset())
        self._times = {key: times for key, times in self._times.items() if key in kept}

    @property
    def times(self) -> Mapping[CounterKey, HitTimes]:
        """Return the times of what has counters now."""
        if self._shown is None:
            live = {key: self._times[key] for key in self._live or () if key in self._times}
            self._shown = MappingProxyType(live)
        return self._shown

    @property
    def kept(self) -> tuple[tuple[CounterKey, HitTimes], ...]:
        """Return what must outlive the agent."""
        return tuple(self._times.items())
