"""Tell of changes of documents: of one that may be the only one at once, of others when all have settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from sgagent.ports import Wake
from sgagent.sources.files.bursts import Bursts
from sgagent.sources.files.settling import Settling, State


class Announcer:
    """Decide when ``wake`` is called for changes of what one watch sees."""

    def __init__(
        self,
        watch: Hashable,
        wake: Wake,
        bursts: Bursts,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing to tell.

        Args:
            watch: what the changes are called together.
            wake: called to tell.
            bursts: is told whether more changes follow those that were told.
            monotonic: the clock, in seconds.
        """
        self._watch = watch
        self._wake = wake
        self._bursts = bursts
        self._monotonic = monotonic
        self._settling = Settling()

    def due(self) -> float | None:
        """Return when there is something to do if nothing else happens; None if there is not."""
        return self._settling.due()

    def note(self, name: Hashable, state: State) -> None:
        """Take in a change."""
        self._settling.note(name, self._monotonic(), state)

    def tell(self, noted_until: float, arm: Callable[[], bool]) -> None:
        """Tell what is to be told now.

        Args:
            noted_until: before which all changes have been noted. It may be some time ago, as this thread may
                have been kept waiting since: a change that came meanwhile is still to be noted.
            arm: has all watched that is to be, so that no change is missed; tells whether some of it was not.
        """
        due = self._settling.due()
        if due is None:
            return
        is_told = self._bursts.is_alone(self._watch)
        if due > noted_until:
            self._tell_early(is_told=is_told)
            return
        stayed_alone = is_told and self._settling.is_alone
        self._settling.clear()
        if stayed_alone:
            self._bursts.stay_alone(self._watch)
            if arm():
                self._wake()
            return
        arm()
        self._bursts.settle(self._watch)
        self._wake()

    def _tell_early(self, *, is_told: bool) -> None:
        """Tell of what has not settled, if it is one change; else that it is not the only one.

        The one who reads is not kept waiting until all is watched: if some of it was not, that is told later.
        """
        if not self._settling.is_alone:
            self._bursts.grow(self._watch)
        elif not is_told:
            self._bursts.begin(self._watch)
            self._wake()
