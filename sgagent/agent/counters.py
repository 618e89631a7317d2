"""Periodic readings of the kernel's counters, monotonic totals over them, and the log of observed drops.

A counter of the kernel restarts at zero when its table is created again, or when its rule was removed and
added. This module keeps the total of each key since boot, when it last grew, and the last value of each
kernel counter. It adds only the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not, itemgetter
from types import MappingProxyType

from sgagent.agent.state.counter_file import CounterFile, KeptCounters, Times, Totals
from sgagent.agent.status import Resets
from sgagent.agent.step import EventLog
from sgagent.core.counter_keys import (
    CounterKey,
    HitTimes,
    ObservedDropCounter,
    OverLimitCounter,
    RuleCounter,
    is_of_drops,
    observed_drop,
    under_other_policy,
)
from sgagent.core.errors import KernelRefusedError, NotPermittedError, SgagentError
from sgagent.core.model import Direction
from sgagent.nft import names as nft_names
from sgagent.nft.transactions import RESET_WATCH
from sgagent.ports import Clock, CounterValue, Dataplane

MOST_RETIRED = 10_000
"""Totals that are kept of what no longer counts; beyond, those that stopped first are forgotten."""


_NOTHING = CounterValue(packets=0, bytes=0)
_NOTHING_KEPT = KeptCounters()


class CounterTotals:
    """Add up the kernel's counters. Belongs to one thread."""

    def __init__(self, kept: KeptCounters = _NOTHING_KEPT, most_retired: int = MOST_RETIRED) -> None:
        """Go on from the kept totals; without any, begin at zero."""
        self._totals = dict(kept.totals)
        self._seen = dict(kept.seen)
        self._keys: Mapping[str, CounterKey] = {}
        self._former = _keys_by_name(kept)
        """The keys of an earlier agent's counters, by name."""

        self._reading: Mapping[str, CounterValue] = {}
        """The last reading: a value object that is unchanged in the next one is already in the totals."""

        self.went_back: frozenset[str] = frozenset()
        """Counters that showed less in the last reading than in the one before, so that they began anew."""

        self._most_retired = most_retired
        self._times = dict(kept.times)
        self._live: frozenset[CounterKey] | None = None
        """The keys with counters; None as long as nothing was enforced, so that none was removed either."""

        self._observed: frozenset[str] = frozenset()
        self._drop_of: Mapping[CounterKey, ObservedDropCounter] = {}
        self._turned: tuple[CounterKey, ...] = ()
        """The keys with counters now, under the policy that they had before."""

        self._shown: tuple[Totals, Times] | None = None
        """The totals and times as they were read last; None once they have changed."""

    def add(
        self,
        reading: Mapping[str, CounterValue],
        keys: Mapping[str, CounterKey],
        observed: frozenset[str] = frozenset(),
        now: float = 0.0,
    ) -> bool:
        """Add the growth since the last reading, and return whether the state to store has changed.

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
            is_news = self._follow(frozenset(keys.values()), now)
            self._keys, self._shown = keys, None
            drops = ((key, observed_drop(key)) for key in keys.values())
            self._drop_of = {key: drop for key, drop in drops if drop is not None}
            self._retire()
        gone = self._seen.keys() - reading.keys()
        self.forget(gone)
        changed = compress(reading.items(), map(is_not, reading.values(), map(last.get, reading)))
        known = ((name, value) for name, value in changed if name in self._keys)
        new = [(name, value) for name, value in known if value != self._seen.get(name, _NOTHING)]
        self.went_back = frozenset(name for name, value in new if _is_below(value, self._seen.get(name)))
        for name, value in new:
            counted = self._count(name, keys[name], value, now)
            drop = self._drop_of.get(keys[name])
            if drop is not None and drop.interface in observed:
                self._add(drop, counted)
        self._reading = dict(reading)
        return is_news or bool(gone or new)

    def begin_anew(
        self,
        reading: Mapping[str, CounterValue],
        after: Mapping[str, CounterValue],
        keys: Mapping[str, CounterKey],
        observed: frozenset[str],
        now: float,
    ) -> None:
        """Add the known packets of the time before a reset, and let all counters begin at zero.

        Args:
            reading: the one that showed the reset. Some of it may be older: a reading takes a moment.
            after: another one, all of it newer than the reset.
            keys: as of :meth:`add`, and so are the next ones.
            observed: interfaces in observe mode.
            now: seconds since the epoch.
        """
        older = {name: value for name, value in reading.items() if _is_below(after.get(name, value), value)}
        self.add({**self._seen, **older}, keys, observed, now)
        self.forget(tuple(self._seen))

    def take_last(self, reading: Mapping[str, CounterValue], leaving: Iterable[str], now: float) -> bool:
        """Add the last counts of an earlier agent's counters, which have no key and are about to be deleted.

        Args:
            reading: every counter of the table; it was taken in.
            leaving: the names of those that are about to be deleted.
            now: seconds since the epoch.

        Returns:
            Whether the counter file has to be written.
        """
        is_news = False
        for name in leaving:
            key, value, seen = self._former.get(name), reading.get(name), self._seen.get(name, _NOTHING)
            if name not in self._keys and key is not None and value is not None and value != seen:
                self._count(name, key, value, now)
                is_news = True
        return is_news

    def forget(self, names: Iterable[str]) -> None:
        """Record that counters were deleted: if there are such again, they have started at zero."""
        self._reading = {}
        for name in names:
            self._seen.pop(name, None)

    @property
    def totals(self) -> Totals:
        """Return the totals of the present counters, and of the packets that observe mode let pass there.

        Where a rule or default changed its policy, that of the policy before is among them: the sum of both
        never goes back.
        """
        return self._show()[0]

    @property
    def times(self) -> Times:
        """Return since when each present counter counts, and when it last grew."""
        return self._show()[1]

    def _show(self) -> tuple[Totals, Times]:
        if self._shown is None:
            keys = (*self._keys.values(), *self._turned, *self._drops())
            totals = {key: self._totals.get(key, _NOTHING) for key in keys}
            times = {key: self._times[key] for key in self._live or () if key in self._times}
            self._shown = MappingProxyType(totals), MappingProxyType(times)
        return self._shown

    @property
    def kept(self) -> KeptCounters:
        """Return the state that must outlive the agent."""
        return KeptCounters(
            tuple(self._totals.items()), tuple(self._seen.items()), tuple(self._times.items())
        )

    def _drops(self) -> Iterator[ObservedDropCounter]:
        """Yield the keys of drops that are, or ever were, only observed, where a counter is."""
        for drop in frozenset(self._drop_of.values()):
            if drop.interface in self._observed or drop in self._totals:
                yield drop

    def _follow(self, live: frozenset[CounterKey], now: float) -> bool:
        """Note which counters count from now on, and return whether that is news.

        A counter that comes back counts since now. A counter that an agent finds when it starts has counted
        all the while.
        """
        if not live and self._live is None:
            return False
        fresh = live - (self._times.keys() if self._live is None else self._live)
        for key in fresh:
            before = self._times.get(key)
            self._times[key] = HitTimes(counted_since=now, last_hit_at=before.last_hit_at if before else None)
        self._live = live
        return bool(fresh)

    def _count(self, name: str, key: CounterKey, value: CounterValue, now: float) -> CounterValue:
        """Add a counter's growth since its last reading, and return that."""
        seen, before = self._seen.get(name, _NOTHING), self._times.get(key)
        if _is_below(value, seen):
            seen = _NOTHING  # the counter was reset or made anew, and began at zero
        counted = CounterValue(value.packets - seen.packets, value.bytes - seen.bytes)
        self._add(key, counted)
        self._times[key] = HitTimes(counted_since=before.counted_since if before else now, last_hit_at=now)
        self._seen[name] = value
        return counted

    def _add(self, key: CounterKey, counted: CounterValue) -> None:
        self._shown = None
        total = self._totals.get(key, _NOTHING)
        self._totals[key] = CounterValue(total.packets + counted.packets, total.bytes + counted.bytes)

    def _retire(self) -> None:
        """Put present counters behind former ones, and forget the first of too many former ones."""
        live = frozenset((*self._keys.values(), *self._drops()))
        self._turned = tuple(
            key for key in self._totals if key not in live and under_other_policy(key) in live
        )
        live = live.union(self._turned)
        retired = [key for key in self._totals if key not in live]
        kept = retired[max(0, len(retired) - self._most_retired) :]
        order = (*kept, *(key for key in self._totals if key in live))
        self._totals = {key: self._totals[key] for key in order}
        known = frozenset(order) | (self._live or frozenset())
        self._times = {key: times for key, times in self._times.items() if key in known}


def _is_below(value: CounterValue, before: CounterValue | None) -> bool:
    return before is not None and (value.packets < before.packets or value.bytes < before.bytes)


def _keys_by_name(kept: KeptCounters) -> Mapping[str, CounterKey]:
    """Return the keys of an earlier agent's counters by name, the newest where a policy changed."""
    newest_last = sorted(kept.times, key=lambda pair: pair[1].counted_since)
    keys = (key for key, _ in newest_last if not isinstance(key, ObservedDropCounter))
    return {nft_names.counter_name(key): key for key in keys}


RETRY_SECONDS = 60.0
"""Until the kernel is asked again for a watch on resets that it refused."""


class CounterPoller:
    """Keep the totals of the table's counters, in memory and in a file."""

    def __init__(self, dataplane: Dataplane, file: CounterFile, clock: Clock) -> None:
        """Go on from the file's totals since the host came up."""
        self._dataplane = dataplane
        self._clock = clock
        self._file = file
        kept, self.damage = file.load()
        """The fault of the file when it was loaded; the totals began at zero then."""

        self.fault: str | None = None
        """Why the totals are not kept now."""

        self.counters = CounterTotals(kept)
        """Has the totals of what was counted since the host came up, for all that is counted now."""

        self.resets = Resets()
        """That were noticed."""

        self._keys: Mapping[str, CounterKey] = {}
        self._observed: frozenset[str] = frozenset()
        self._is_first, self._is_watched, self._is_watch_due = True, True, False
        self._watch_at = -math.inf
        """From when on the kernel may be asked for a watch on resets, by the monotonic clock."""

    def follow(self, keys: Mapping[str, CounterKey], observed: frozenset[str]) -> None:
        """Record the keys of the counters from now on.

        Where a standing counter gets another key, as a rule's policy changed, the counters are read before.

        Args:
            keys: by the counters' names.
            observed: interfaces on which nothing is dropped.
        """
        if keys != self._keys:
            if any(self._keys.get(name, key) != key for name, key in keys.items()):
                with suppress(SgagentError):  # the next reading counts for the new policies
                    self.read()
            self._keys = keys
        self._observed = observed

    def read(self, leaving: frozenset[str] = frozenset()) -> None:
        """Add the growth since the last reading, and keep the totals if they changed, or are not kept.

        Args:
            leaving: counters that are about to be deleted.
        """
        reading, now = self._dataplane.read_counters(), self._clock.now()
        is_reset = self._is_watched and reading.get(RESET_WATCH) == _NOTHING
        if is_reset:
            after = self._dataplane.read_counters()
            self._is_watched = False  # that one reset is known, and the watch has to be set anew
            self.counters.begin_anew(reading, after, self._keys, self._observed, now)
            reading = after
        is_news = self.counters.add(reading, self._keys, self._observed, now) or is_reset
        is_reset |= RESET_WATCH in reading and bool(self.counters.went_back) and not self._is_first
        self._is_first = False
        if is_reset:
            self.resets = Resets(self.resets.count + 1, now)
        if self.counters.take_last(reading, leaving, now) or is_news or self.fault:
            self._save()
        self._is_watch_due = bool(reading) and not (self._is_watched and RESET_WATCH in reading)

    def poll(self) -> None:
        """Read the counters between two steps, and watch for resets by other processes from then on.

        Raises:
            SgagentError: they can't be read.
        """
        self.read()
        if not self._is_watch_due or self._clock.monotonic() < self._watch_at:
            return
        try:
            self._dataplane.watch_resets()
        except (
            KernelRefusedError,
            NotPermittedError,
        ):  # a reset shows only by less than before
            self._watch_at = self._clock.monotonic() + RETRY_SECONDS
        else:
            self._is_watched = True

    def forget(self, names: frozenset[str]) -> None:
        """Record that counters were deleted: if there are such again, they have started at zero."""
        if names:
            self.counters.forget(names)
            self._save()

    def _save(self) -> None:
        self.fault = None
        try:
            self._file.save(self.counters.kept)
        except OSError as error:
            self.fault = f"{self._file.path}: {error.strerror}"


SECONDS_BETWEEN_LINES = 60.0
"""Of the log, for each interface."""


class ResetLog:
    """Write a line when another process has reset the counters, and no more than one a minute."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        """Take the log, and the clock that spaces lines out."""
        self._log = log
        self._clock = clock
        self._said = 0
        self._due_at = -math.inf

    def follow(self, resets: Resets) -> None:
        """Log resets that were not logged yet."""
        now = self._clock.monotonic()
        if resets.count > self._said and now >= self._due_at:
            self._log.warning("counters_reset", times=resets.count - self._said)
            self._said, self._due_at = resets.count, now + SECONDS_BETWEEN_LINES


MOST_RULES_NAMED = 10
"""Those with the most packets, in one line."""


@dataclass(slots=True)
class _Observation:
    """The observation of one interface."""

    since: float
    """By the monotonic clock: when the last line was written, or observing began."""

    is_due_at: float
    sum_said: int
    said: dict[CounterKey, int] = field(default_factory=dict)
    """The packets of every counter of drops."""


class ObservationLog:
    """Write a line when something would have been dropped, and no more than one a minute."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        """Take the log, and the clock that spaces lines out."""
        self._log = log
        self._clock = clock
        self._observations: dict[str, _Observation] = {}

    def follow(self, totals: Totals, observed: frozenset[str]) -> None:
        """Log the packets counted since the last line.

        Packets from before an interface entered observe mode are left out.

        Args:
            totals: the newest.
            observed: interfaces on which nothing is dropped.
        """
        now = self._clock.monotonic()
        self._observations = {
            name: self._observations.get(name) or _begun(name, totals, now) for name in sorted(observed)
        }
        for name, observation in self._observations.items():
            if now >= observation.is_due_at and _sum(name, totals) != observation.sum_said:
                self._log_observation(name, observation, totals, now)
                self._observations[name] = _begun(name, totals, now, now + SECONDS_BETWEEN_LINES)

    def _log_observation(self, name: str, observation: _Observation, totals: Totals, now: float) -> None:
        """Write the line."""
        counted = {
            key: packets - observation.said.get(key, 0) for key, packets in _drops(name, totals).items()
        }
        most = sorted(
            ((*_named(key), packets) for key, packets in counted.items() if packets > 0),
            key=lambda named: (-named[2], named[0], named[1]),
        )
        self._log.info(
            "would_have_dropped",
            interface=name,
            packets=sum(map(itemgetter(2), most)),
            seconds=round(now - observation.since, 1),
            drops=[
                {"direction": direction, "by": by, "packets": packets}
                for direction, by, packets in most[:MOST_RULES_NAMED]
            ],
            others=sum(map(itemgetter(2), most[MOST_RULES_NAMED:])),
        )


def _begun(name: str, totals: Totals, now: float, due_at: float = 0.0) -> _Observation:
    """Return an observation of an interface that begins with these totals."""
    return _Observation(since=now, is_due_at=due_at, sum_said=_sum(name, totals), said=_drops(name, totals))


def _sum(name: str, totals: Totals) -> int:
    """Return all that would ever have been dropped on an interface, without going through its counters."""
    keys = (ObservedDropCounter(interface=name, direction=direction) for direction in Direction)
    return sum(totals.get(key, _NOTHING).packets for key in keys)


def _drops(name: str, totals: Totals) -> dict[CounterKey, int]:
    """Return the packets of every counter of drops of an interface."""
    keys = (key for key in totals if is_of_drops(key) and key.interface == name)
    return {key: totals[key].packets for key in keys}


def _named(key: CounterKey) -> tuple[str, str]:
    """Return the direction and the rule, or the step of §3, that a counter of drops is about."""
    drop = observed_drop(key)
    if drop is None:
        raise ValueError(f"{key} counts no drops")
    step = type(key).__name__.removesuffix("Counter").lower()
    return drop.direction.value, key.rule_id if isinstance(key, RuleCounter | OverLimitCounter) else step
