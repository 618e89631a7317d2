"""Tell of changes of documents: of one that may be the only one at once, of others when all have settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from sgagent.ports import Wake
from sgagent.sources.files.bursts import Bursts
from sgagent.sources.files.settling import BurstState, Settling


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
        self._is_news = False
        """Whether changes were noted since something was told of them."""

    def due(self) -> float | None:
        """Return when there is something to do if nothing else happens; None if there is not."""
        return self._settling.due()

    def note(self, name: Hashable, state: BurstState) -> None:
        """Take in a change."""
        self._settling.note(name, self._monotonic(), state)
        self._is_news = True

    def tell(self, noted_until: float, arm: Callable[[], bool]) -> None:
        """Tell what is to be told now.

        Args:
            noted_until: before which all changes have been noted. It may be some time ago, as this thread may
                have been kept waiting since: a change that came meanwhile is still to be noted.
            arm: has all watched that is to be, so that no change is missed; tells whether some of it was not.
        """
        due, is_news, self._is_news = self._settling.due(), self._is_news, False
        if due is None:
            return
        if due > noted_until:
            if is_news:
                self._tell_early()
            return
        if not self._settling.is_alone:
            self._tell_all(arm, is_put_off=self._settling.go_on(noted_until))
            return
        self._settling.clear()
        if not self._bursts.stay_alone(self._watch):
            self._tell_all(arm, is_put_off=False)
        elif arm():
            self._wake()

    def _tell_all(self, arm: Callable[[], bool], *, is_put_off: bool) -> None:
        arm()
        self._bursts.settle(self._watch, is_put_off=is_put_off)
        self._wake()

    def _tell_early(self) -> None:
        """Tell of a new change that has not settled, if it is the first; else that it is not the only one.

        The one who reads is not kept waiting until all is watched: if some of it was not, that is told later.
        """
        if not self._settling.is_alone:
            self._bursts.grow(self._watch)
        else:
            self._bursts.begin(self._watch)
            self._wake()
