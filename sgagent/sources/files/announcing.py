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

    def tell(self, arm: Callable[[], None]) -> None:
        """Tell what is to be told now.

        Args:
            arm: called before, so that nothing is missed that comes into being meanwhile.
        """
        due = self._settling.due()
        if due is None:
            return
        is_told = self._bursts.is_alone(self._watch)
        if due > self._monotonic():
            self._tell_early(arm, is_told=is_told)
            return
        stayed_alone = is_told and self._settling.is_alone
        self._settling.clear()
        if not stayed_alone:
            arm()
            self._bursts.grant()
        self._bursts.end(self._watch)
        if not stayed_alone:
            self._wake()

    def _tell_early(self, arm: Callable[[], None], *, is_told: bool) -> None:
        """Tell of what has not settled, if it is one change; else that it is not the only one."""
        if not self._settling.is_alone:
            self._bursts.grow(self._watch)
        elif not is_told:
            arm()
            self._bursts.begin(self._watch)
            self._wake()

    def give_up(self) -> None:
        """Let nobody wait for what will not be told any more."""
        self._bursts.end(self._watch)
