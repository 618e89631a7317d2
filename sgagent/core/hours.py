"""Hours of the week at which a rule exists (§13.2)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = tuple(range(len(DAYS)))
MINUTES_OF_DAY = 24 * 60
_LOOK_AHEAD = 2 * len(DAYS)
"""Days in which each day of the week comes, also where a zone has skipped one (Samoa, 2011)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """A span of the clock on some days of each week, in a time zone."""

    days: tuple[int, ...] = EVERY_DAY
    """On which a span begins, sorted; Monday is 0."""

    begins: int = 0
    """Minutes from midnight; the span holds this one."""

    ends: int = MINUTES_OF_DAY
    """Likewise, and the span does not hold it. Not later than :attr:`begins`: on the next day."""

    zone: tzinfo = UTC

    def include(self, instant: datetime) -> bool:
        """Return whether an instant is in one of the spans."""
        return any(begin <= instant < end for begin, end in self._spans(instant, 1))

    def next_edge(self, instant: datetime) -> datetime | None:
        """Return when the first span after an instant begins or ends; None where the calendar is over."""
        return min(self.edges(instant), default=None)

    def edges(self, instant: datetime) -> frozenset[datetime]:
        """Return when spans of the two weeks after an instant begin and end."""
        edges = (edge for span in self._spans(instant, _LOOK_AHEAD) for edge in span)
        return frozenset(edge for edge in edges if edge > instant)

    def _spans(self, instant: datetime, days_ahead: int) -> Iterator[tuple[datetime, datetime]]:
        """Yield begin and end of the spans around an instant, in UTC."""
        ends = self.ends if self.ends > self.begins else self.ends + MINUTES_OF_DAY
        for offset in range(-2, days_ahead + 1):
            with suppress(OverflowError):  # the calendar has no such day
                day = instant.astimezone(self.zone).date() + timedelta(days=offset)
                if day.weekday() in self.days:
                    yield self._instant(day, self.begins), self._instant(day, ends)

    def _instant(self, day: date, minutes: int) -> datetime:
        """Return when clocks show a time: the first of two times; after a gap, its end."""
        shown = datetime.combine(day, time(), self.zone) + timedelta(minutes=minutes)
        first, second = (shown.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        return first if first <= second else self._end_of_gap(second, first)

    def _end_of_gap(self, before: datetime, after: datetime) -> datetime:
        """Return the second at which the offset becomes that of ``after``."""
        offset = after.astimezone(self.zone).utcoffset()

        def is_after_gap(seconds: int) -> bool:
            return (before + timedelta(seconds=seconds)).astimezone(self.zone).utcoffset() == offset

        seconds = range(int((after - before).total_seconds()))
        return before + timedelta(seconds=bisect_left(seconds, 1, key=is_after_gap))

    @property
    def days_text(self) -> str:
        """Return the days as documents write them: ``mon-fri``, ``mon,wed``."""
        runs: list[list[int]] = []
        for day in self.days:
            if runs and runs[-1][-1] == day - 1:
                runs[-1].append(day)
            else:
                runs.append([day])
        return ",".join("-".join(DAYS[day] for day in dict.fromkeys((run[0], run[-1]))) for run in runs)

    def __str__(self) -> str:
        """Return the hours for people: ``mon-fri 08:00-18:00 Europe/Berlin``."""
        return f"{self.days_text} {clock_text(self.begins)}-{clock_text(self.ends)} {self.zone}"


def clock_text(minutes: int) -> str:
    """Return minutes from midnight as clocks show them; the end of a day is 24:00."""
    return f"{minutes // 60:02}:{minutes % 60:02}"
