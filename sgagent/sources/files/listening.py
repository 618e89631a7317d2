"""Hear of changes of what is watched, and tell of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

from sgagent.ports import Wake
from sgagent.sources.files.announcing import Announcer
from sgagent.sources.files.bursts import Bursts
from sgagent.sources.files.settling import BurstState


@dataclass(frozen=True, slots=True)
class HeardChange:
    """What happened since somebody listened last."""

    changes: tuple[tuple[Hashable, BurstState], ...] = ()
    """Names, and what each change left behind."""

    is_more_watched: bool = False
    """Whether some of what is watched from now on was not before: changes of it are not among these."""


class Watched(Protocol):
    """What is listened to."""

    def take(self) -> HeardChange:
        """Return all that happened since the last time, once all is watched that is to be."""
        ...

    def arm(self) -> bool:
        """Watch all that is to be watched; tell whether some of it is new."""
        ...


class ChangeFeed:
    """Take in what happens, turn by turn, and tell of it."""

    def __init__(
        self, watched: Watched, wake: Wake, bursts: Bursts, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nothing to tell.

        Args:
            watched: what is listened to.
            wake: called to tell.
            bursts: is told whether more changes follow those that were told.
            monotonic: the clock, in seconds.
        """
        self._watched = watched
        self._bursts = bursts
        self._monotonic = monotonic
        self._announcer = Announcer(self, wake, bursts, monotonic)

    def due(self) -> float | None:
        """Return when there is a turn to take if nothing else happens; None if there is not."""
        return self._announcer.due()

    def take_turn(self, *, is_asked: bool) -> None:
        """Note all that has happened, and tell what is to be told now.

        Args:
            is_asked: whether somebody wants to know that all is noted.

        Raises:
            OSError: no more can be watched.
        """
        # Before it looks: what comes later may be overlooked, as this thread may have to wait.
        noted_until = self._monotonic()
        heard = self._watched.take()
        if heard.is_more_watched:
            self._bursts.lose_sight()
        for name, state in heard.changes:
            self._announcer.note(name, state)
        self._announcer.tell(noted_until, self._watched.arm)
        if is_asked:
            self._bursts.answer(self)
