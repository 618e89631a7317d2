"""The clocks of this host, the latest time that it has ever known, and times as text for people.

By the latest time rules expire (§12.4). It never goes back: not with the clock, and not over restarts and
boots, since it is kept in the state. So a clock that is wrong revives no rule that has ended.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sgagent.agent.state.directory import SealedFile, fault_of
from sgagent.core.errors import count
from sgagent.json_model import from_json
from sgagent.ports import Clock


class SystemClock:
    """The clocks of this host."""

    def now(self) -> float:
        """Return the wall clock in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


FILE_NAME = "latest-time.json"

SECONDS_BETWEEN_WRITES = 60.0
"""Where no rule ends: what is lost by a crash is at most so much."""


@dataclass(frozen=True, slots=True)
class _Body:
    seconds: float
    """Since the epoch."""


class LatestTime:
    """The later of the clock's time and the latest time that was known before."""

    def __init__(self, directory: Path, clock: Clock, *, is_kept: bool = True) -> None:
        """Read the time that an earlier agent kept.

        Args:
            directory: the state directory; it is made when the time is kept.
            clock: of the host, which may be wrong.
            is_kept: whether to write at all.
        """
        self._file = SealedFile(directory / FILE_NAME, "file of the latest time")
        self._clock = clock
        self._is_kept = is_kept
        found, self._damage = self._file.load(partial(from_json, _Body))
        self._write_fault: str | None = None
        self._kept = found.seconds if found else None
        self._latest = self._kept or 0.0

    @property
    def fault(self) -> str | None:
        """Return why the time is not kept, else the fault of the file at the start.

        The damage stays known although the file is written anew: a rule that had ended is in force again if
        the clock is wrong.
        """
        return self._write_fault or self._damage

    def now(self) -> datetime:
        """Return the latest time, and keep it now and then."""
        self._latest = max(self._latest, self._clock.now())
        if self._kept is None or self._latest >= self._kept + SECONDS_BETWEEN_WRITES:
            self.keep()
        return datetime.fromtimestamp(self._latest, UTC)

    def keep(self) -> None:
        """Keep the latest time; that this failed is a fault, and tried again later."""
        if not self._is_kept or self._kept == self._latest:
            return
        body = {"seconds": self._latest}
        self._write_fault = fault_of(lambda: self._file.save(body), "the latest time could not be kept")
        if not self._write_fault:
            self._kept = self._latest


_LAST_SECOND = 253_402_300_799.0
"""The last one that the calendar has: 9999-12-31T23:59:59Z."""


def timestamp(instant: datetime) -> float:
    """Return an instant in seconds since the epoch; rounded down where there is none to round up to."""
    return min(instant.timestamp(), _LAST_SECOND)


def clock_time(seconds: float) -> str:
    """Return a time by the clock of this host; in UTC where the calendar ends before that has it."""
    time_there = datetime.fromtimestamp(seconds, UTC)
    with suppress(OverflowError, ValueError):
        time_there = time_there.astimezone()
    return time_there.isoformat(sep=" ", timespec="seconds")


def moment(seconds: float, now: float) -> str:
    """Return a time by the clock of this host, and how long ago it was."""
    return f"{clock_time(seconds)} ({age(max(0.0, now - seconds))})"


def time_left(seconds: float) -> str:
    """Return a time that somebody may have to hurry in: in seconds while these matter."""
    return count(round(seconds), "second") if seconds < _SECONDS_MATTER else age(seconds)


_SECONDS_MATTER = 600.0


def short_age(seconds: float) -> str:
    """Return a time span in its largest whole unit, in few signs: ``7s``, ``41d``."""
    number, unit = age(seconds).split()
    return f"{number}{unit[0]}"


def age(seconds: float) -> str:
    """Return a time span in its largest whole unit."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return count(int(seconds // length), unit)
    return count(int(seconds), "second")
