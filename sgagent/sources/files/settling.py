"""Wait for a burst of changes to settle, so that nobody reads a file between its first and its last byte."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping

ALONE_SECONDS = 0.005
"""How long a file that was moved into its place, whole, has no effect, to see whether it is one of many."""

QUIET_SECONDS = 0.05
"""How long after a complete change more of the same burst may follow: a check-out writes many files."""

UNSETTLED_SECONDS = 0.3
"""How long a change may take to be completed that looks incomplete: a file that is still open, or that an
editor moved away and is about to write anew."""

LONGEST_SECONDS = 0.5
"""How long a burst may put off its first change; changes are enforced within 2 seconds."""


class BurstState(enum.Enum):
    """What a change left behind."""

    WHOLE = "whole"
    """All of a file, put in its place at once."""

    COMPLETE = "complete"
    """What was written in its place, to the end as it seems."""

    INCOMPLETE = "incomplete"


_SECONDS: Mapping[BurstState, float] = {
    BurstState.WHOLE: QUIET_SECONDS,
    BurstState.COMPLETE: QUIET_SECONDS,
    BurstState.INCOMPLETE: UNSETTLED_SECONDS,
}


class Settling:
    """Keep the names that changed, and when they will have settled. Times are monotonic seconds."""

    def __init__(self) -> None:
        """Start with nothing to wait for."""
        self._quiet_at: dict[Hashable, float] = {}
        self._began = 0.0
        self._patience = LONGEST_SECONDS

    def note(self, name: Hashable, now: float, state: BurstState) -> None:
        """Take in a change; only the newest of a name counts."""
        is_alone = not self._quiet_at
        if is_alone:
            self._began = now
        self._patience = ALONE_SECONDS if is_alone and state is BurstState.WHOLE else LONGEST_SECONDS
        self._quiet_at[name] = now + _SECONDS[state]

    def due(self) -> float | None:
        """Return when all changes will have settled if no other comes; None if there are none."""
        if not self._quiet_at:
            return None
        return min(self._began + self._patience, max(self._quiet_at.values()))

    @property
    def is_alone(self) -> bool:
        """Return whether there is one change, of a whole file, that may be the only one."""
        return bool(self._quiet_at) and self._patience == ALONE_SECONDS

    def clear(self) -> None:
        """Forget the changes, as someone has been told of them."""
        self._quiet_at.clear()

    def go_on(self, now: float) -> bool:
        """Forget the changes that have settled, as someone has been told; tell whether others have not.

        They were told for lack of patience, and have all the time again.
        """
        self._quiet_at = {name: quiet_at for name, quiet_at in self._quiet_at.items() if quiet_at > now}
        self._began, self._patience = now, LONGEST_SECONDS
        return bool(self._quiet_at)
