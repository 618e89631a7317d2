"""Periodic readings of the kernel's counters, added to the totals. Used by the daemon's loop only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from sgagent.agent.counter_totals import Accounting
from sgagent.agent.state.counter_file import CounterFile
from sgagent.agent.state.hit_times import HitTimes
from sgagent.core.errors import SgagentError
from sgagent.nft.counter_keys import CounterKey
from sgagent.ports import Clock, CounterValue, Dataplane


class Counting:
    """Keep the totals of what the table counts, in memory and in a file."""

    def __init__(self, dataplane: Dataplane, file: CounterFile, clock: Clock) -> None:
        """Go on from what the file kept since the host came up."""
        self._dataplane = dataplane
        self._clock = clock
        self._file = file
        kept, self.damage = file.load()
        """What was wrong with the file when it was loaded; the totals began at zero then."""

        self.fault: str | None = None
        """Why the totals are not kept now."""

        self._accounting = Accounting(kept)
        self._keys: Mapping[str, CounterKey] = {}
        self._observed: frozenset[str] = frozenset()

    def follow(self, keys: Mapping[str, CounterKey], observed: frozenset[str]) -> None:
        """Record what the counters of the table count from now on.

        Where that is something else for a standing counter, as a rule's policy changed, the counters are read
        before.

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
        """Add what was counted since the last reading, and keep the totals if they changed.

        Args:
            leaving: counters that are about to be deleted.
        """
        reading, now = self._dataplane.read_counters(), self._clock.now()
        is_news = self._accounting.take_in(reading, self._keys, self._observed, now)
        if self._accounting.take_last(reading, leaving, now) or is_news:
            self._save()

    def forget(self, names: frozenset[str]) -> None:
        """Record that counters were deleted: if there are such again, they have started at zero."""
        if names:
            self._accounting.forget(names)
            self._save()

    def _save(self) -> None:
        try:
            self._file.save(self._accounting.kept)
        except OSError as error:
            self.fault = f"{self._file.path}: {error.strerror}"
        else:
            self.fault = None

    @property
    def totals(self) -> Mapping[CounterKey, CounterValue]:
        """Return what was counted since the host came up, for all that is counted now."""
        return self._accounting.totals

    @property
    def times(self) -> Mapping[CounterKey, HitTimes]:
        """Return since when what is counted now is counted, and when it last grew."""
        return self._accounting.times
