"""Tell whoever reads documents whether what was read is half of many changes that belong together.

A first change is told at once, before it is known to be the only one: while that becomes clear, it is read,
and all that follows from it is worked out. Nothing of it may have any effect before it is known.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sgagent.sources.files.settling import LONGEST_SECONDS

OVERDUE_SECONDS = 0.8 * LONGEST_SECONDS
"""After which changes count as they are read. Those told for lack of patience have waited for longer."""


class _Standing(enum.Enum):
    """What is known of changes that have not settled."""

    ALONE = "alone"
    """One was told; whether it stays the only one is not known yet."""

    BURST = "burst"
    """There are more; all will be told once they have settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """When the documents were read last."""

    settled: int
    """How many bursts had settled when it began."""

    waiting_since: float | None
    """Since when there were changes that no reading before has brought into effect."""

    is_overdue: bool
    """Whether that was so long ago that they count now, though more may be under way."""


class Bursts:
    """Keep what the threads that watch know, for the one that reads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing under way.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._known = threading.Condition()
        self._standings: dict[Hashable, _Standing] = {}
        self._settled = 0
        self._waiting_since: float | None = None
        self._questions: dict[Hashable, int] = {}
        self._unanswered: set[Hashable] = set()
        self._reading = _Reading(settled=0, waiting_since=None, is_overdue=False)

    @contextmanager
    def questions(self, watch: Hashable) -> Iterator[int]:
        """Yield an event's descriptor for a watch, until the context is left; then nobody waits for it.

        What it leaves under way may be half of something, and is found by whoever looks at the files then.

        Once it can be read, the watch is to note all that has happened, and then to :meth:`answer`.
        """
        question = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        with self._known:
            self._questions[watch] = question
        try:
            yield question
        finally:
            with self._known:
                del self._questions[watch]
                self._unanswered.discard(watch)
                self._forget(watch, is_settled=watch in self._standings)
            os.close(question)

    def answer(self, watch: Hashable) -> None:
        """Say that all is noted that had happened when it was asked."""
        with self._known:
            self._unanswered.discard(watch)
            self._known.notify_all()

    def begin(self, watch: Hashable) -> None:
        """Note a first change of what is watched; it is not alone where another watch has one as well."""
        with self._known:
            self._note(watch, _Standing.ALONE)
            if len(self._standings) > 1:
                self._standings = dict.fromkeys(self._standings, _Standing.BURST)

    def grow(self, watch: Hashable) -> None:
        """Note that it is not the only one, or may be there in part."""
        self._note(watch, _Standing.BURST)

    def stay_alone(self, watch: Hashable) -> None:
        """Note that no more came."""
        self._forget(watch, is_settled=False)

    def settle(self, watch: Hashable) -> None:
        """Note that all changes have settled, or were waited for long enough; they are told next."""
        self._forget(watch, is_settled=True)

    def is_alone(self, watch: Hashable) -> bool:
        """Tell whether one change was noted that may be the only one."""
        with self._known:
            return self._standings.get(watch) is _Standing.ALONE

    def begin_reading(self) -> None:
        """Note that the documents are about to be read, to be brought into effect."""
        with self._known:
            since, self._waiting_since = self._waiting_since, None
            is_overdue = since is not None and self._monotonic() >= since + OVERDUE_SECONDS
            self._reading = _Reading(settled=self._settled, waiting_since=since, is_overdue=is_overdue)

    def has_settled(self) -> bool:
        """Wait until it is known whether what was read last is whole, and return whether it is.

        It may be half of what is under way by now, and of a burst that has settled since the reading began.
        """
        reading = self._reading
        with self._known:
            if reading.is_overdue:
                return True
            self._hear_all()
            self._known.wait_for(lambda: _Standing.ALONE not in self._standings.values())
            is_whole = not self._standings and self._settled == reading.settled
            if not is_whole and reading.waiting_since is not None:
                self._waiting_since = reading.waiting_since
            return is_whole

    def _hear_all(self) -> None:
        """Wait until the threads have noted what happened so far: they may wait for the interpreter, too."""
        self._unanswered.update(self._questions)
        for question in self._questions.values():
            os.eventfd_write(question, 1)
        self._known.wait_for(lambda: not self._unanswered)

    def _forget(self, watch: Hashable, *, is_settled: bool) -> None:
        """Wait for no more changes; if they have settled, whoever reads now has to read again."""
        with self._known:
            self._standings.pop(watch, None)
            self._settled += is_settled
            self._known.notify_all()

    def _note(self, watch: Hashable, standing: _Standing) -> None:
        with self._known:
            if self._waiting_since is None:
                self._waiting_since = self._monotonic()
            self._standings[watch] = standing
            self._known.notify_all()
