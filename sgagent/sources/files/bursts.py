"""Tell whoever reads documents whether more changes follow those that were read.

A first change is told at once, before it is known to be the only one: while that becomes clear, it is read,
and all that follows from it is worked out. Nothing of it may have any effect before it is known.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Hashable


class _Standing(enum.Enum):
    """What is known of changes that have not settled."""

    ALONE = "alone"
    """One was told; whether it stays the only one is not known yet."""

    BURST = "burst"
    """There are more; all will be told once they have settled."""


class Bursts:
    """Keep what the threads that watch know, for the one that reads."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._known = threading.Condition()
        self._standings: dict[Hashable, _Standing] = {}
        self._is_granted = False

    def begin(self, watch: Hashable) -> None:
        """Note a first change of what is watched."""
        self._note(watch, _Standing.ALONE)

    def grow(self, watch: Hashable) -> None:
        """Note that it is not the only one."""
        self._note(watch, _Standing.BURST)

    def end(self, watch: Hashable) -> None:
        """Note that no more came."""
        self._note(watch, None)

    def grant(self) -> None:
        """Have what is read next taken as it is, though more may be under way again by then."""
        with self._known:
            self._is_granted = True

    def is_alone(self, watch: Hashable) -> bool:
        """Tell whether one change was noted that may be the only one."""
        with self._known:
            return self._standings.get(watch) is _Standing.ALONE

    def take_grant(self) -> bool:
        """Return whether what is read now is to be taken as it is; that holds once."""
        with self._known:
            granted, self._is_granted = self._is_granted, False
            return granted

    def wait(self) -> bool:
        """Wait until it is known whether more changes follow what was read, and return whether none do.

        A grant that nobody took yet is for changes that ended after the reading began: that may hold half.
        """
        with self._known:
            self._known.wait_for(lambda: _Standing.ALONE not in self._standings.values())
            return not self._standings and not self._is_granted

    def _note(self, watch: Hashable, standing: _Standing | None) -> None:
        with self._known:
            if standing is None:
                self._standings.pop(watch, None)
            else:
                self._standings[watch] = standing
            self._known.notify_all()
