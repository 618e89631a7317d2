"""Tell whoever reads documents whether what was read is half of many changes that belong together.

A first change is told at once, before it is known to be the only one: while that becomes clear, it is read,
and all that follows from it is worked out. Nothing of it may have any effect before it is known.

What is promised: if two files are moved into place within ``ALONE_SECONDS`` of each other, a reading that has
one and not the other has not settled. But for changes that were put off for so long already that they count
as they are read.
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


@dataclass(slots=True, eq=False)
class _Change:
    """What is under way of what one watch sees, from its first change until it has settled."""

    standing: _Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """Changes that no reading has brought into effect."""

    since: float | None = None
    """Since when there were some."""

    is_put_off: bool = False
    """Whether they were told for lack of patience, or read in vain: not only the one who reads was late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """When the documents were read last."""

    settled: int
    """How many bursts had settled when it began."""

    waiting: _Waiting
    """What waited for it."""

    is_overdue: bool
    """Whether that was put off for so long that it counts now, though more may be under way."""


class Bursts:
    """Keep what the threads that watch know, for the one that reads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing under way.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._known = threading.Condition()
        self._changes: dict[Hashable, _Change] = {}
        self._settled = 0
        self._waiting = _Waiting()
        self._questions: dict[Hashable, int] = {}
        self._unanswered: set[Hashable] = set()
        self._reading = _Reading(settled=0, waiting=_Waiting(), is_overdue=False)
        self._changed_over_reading: set[Hashable] = set()
        """The watches that saw something under way at any time since the last reading began."""

    @contextmanager
    def questions(self, watch: Hashable) -> Iterator[int]:
        """Yield an event's descriptor for a watch, until the context is left; then nobody waits for it.

        What it leaves behind, told or not, may be half of something: what was read so far has not settled.
        Whoever looks at the files then is to tell once more.

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
                self.settle(watch)
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
            if len(self._changes) > 1:
                for change in self._changes.values():
                    change.standing = _Standing.BURST

    def grow(self, watch: Hashable) -> None:
        """Note that it is not the only one, or may be there in part."""
        self._note(watch, _Standing.BURST)

    def stay_alone(self, watch: Hashable) -> bool:
        """Note that no more came, and forget the change; return False where others came elsewhere."""
        with self._known:
            change = self._changes.get(watch)
            if change is None or change.standing is not _Standing.ALONE:
                return False
            del self._changes[watch]
            self._known.notify_all()
            return True

    def settle(self, watch: Hashable, *, is_put_off: bool = False) -> None:
        """Note that all changes have settled; they are told next, and what was read before is read again.

        Args:
            watch: which saw them.
            is_put_off: whether some have not, but were waited for long enough; these are still under way.
        """
        with self._known:
            if is_put_off:
                self._waiting = _Waiting(since=self._waiting.since, is_put_off=True)
            else:
                self._changes.pop(watch, None)
            self._settled += 1
            self._known.notify_all()

    def lose_sight(self) -> None:
        """Note that something was read before it was watched: it is read again, as its watch tells next."""
        with self._known:
            self._settled += 1

    def begin_reading(self) -> None:
        """Note that the documents are about to be read, to be brought into effect."""
        with self._known:
            waiting, self._waiting = self._waiting, _Waiting()
            is_overdue = (
                waiting.since is not None
                and waiting.is_put_off
                and self._monotonic() >= waiting.since + OVERDUE_SECONDS
            )
            self._reading = _Reading(settled=self._settled, waiting=waiting, is_overdue=is_overdue)
            self._changed_over_reading = set(self._changes)

    def has_settled(self) -> bool:
        """Wait until it is known whether what was read last is whole, and return whether it is.

        It may be half of what is under way by now, and of a burst that has settled since the reading began.
        """
        with self._known:
            for is_known in self.unknowns():
                self._known.wait_for(is_known)
            return self.is_whole()

    def unknowns(self) -> Iterator[Callable[[], bool]]:
        """Yield one condition after the other that is to hold before it is known whether a reading is whole.

        First, the threads have noted all that was there to be read: they may wait for the interpreter, too.
        Then each change among that is known to be alone, or not. But what came elsewhere in the meantime may
        not have been noted there, so all are asked once more.
        """
        if self._reading.is_overdue:
            return
        yield self._ask_all()
        alone = {watch: c for watch, c in self._changes.items() if c.standing is _Standing.ALONE}
        yield lambda: not any(self._is_alone(watch, change) for watch, change in alone.items())
        if self._changed_over_reading and len(self._questions) > 1:
            yield self._ask_all()

    def is_whole(self) -> bool:
        """Return whether the last reading is whole, as far as that is known; if not, it was in vain.

        Changes that two watches saw over the reading may belong together, though each was alone where it was.
        """
        reading = self._reading
        if reading.is_overdue:
            return True
        is_burst = any(change.standing is _Standing.BURST for change in self._changes.values())
        is_told_anew = self._settled != reading.settled or len(self._changed_over_reading) > 1
        if not is_burst and not is_told_anew:
            return True
        since = self._waiting.since if reading.waiting.since is None else reading.waiting.since
        self._waiting = _Waiting(since=since, is_put_off=since is not None)
        return False

    def _ask_all(self) -> Callable[[], bool]:
        """Ask the threads to note what happened so far, and return what tells whether they all have."""
        self._unanswered.update(self._questions)
        for question in self._questions.values():
            os.eventfd_write(question, 1)
        return lambda: not self._unanswered

    def _is_alone(self, watch: Hashable, change: _Change) -> bool:
        """Return whether a change may still be the only one."""
        return self._changes.get(watch) is change and change.standing is _Standing.ALONE

    def _note(self, watch: Hashable, standing: _Standing) -> None:
        with self._known:
            if self._waiting.since is None:
                self._waiting = _Waiting(since=self._monotonic(), is_put_off=self._waiting.is_put_off)
            self._changes.setdefault(watch, _Change(standing)).standing = standing
            self._changed_over_reading.add(watch)
            self._known.notify_all()
