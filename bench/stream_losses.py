"""Report the effects of applies on streams of packets: leaks, losses, and how long packets waited."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.goals import Goal
from bench.section import figure, goal_table, percentile, table
from bench.sending import Stream
from bench.sizes import Size

LEAST_PACKETS = 1_000_000
MOST_LONGER = 1.0
"""Milliseconds."""


class Situation(enum.Enum):
    """The situation while the streams are sent."""

    HERE = "applies"
    ELSEWHERE = "the same applies on another host"
    QUIET = "no applies"


@dataclass(frozen=True, slots=True)
class Waits:
    """How long calls of eight packets took, in microseconds."""

    calls: int
    half: float
    most: float
    """999 of 1,000 took no longer."""

    worst: float
    long: int
    """Calls that took more than a millisecond."""

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Waits:
        """Return the waits of at least one call."""
        half, most, worst = (percentile(nanoseconds, percent) / 1000 for percent in (50, 99.9, 100))
        return cls(len(nanoseconds), half, most, worst, sum(took > 1_000_000 for took in nanoseconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The fates of the packets of one kind of change while it was applied."""

    change: str
    applies: int
    accepted: int
    """Packets of new sessions that were sent and are to get past."""

    accepted_lost: int
    known: int
    known_lost: int
    denied: int
    leaked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """All that was measured."""

    size: Size
    losses: tuple[Losses, ...]
    waits: Mapping[str, Mapping[str, Waits]]
    """By situation and by stream."""


def judge(found: Streams) -> Iterator[Goal]:
    """Yield the goals for traffic."""
    applies = sum(lost.applies for lost in found.losses)
    for text, sent, wrong in (
        ("denied packets that passed", _sum(found, "denied"), _sum(found, "leaked")),
        ("packets of new sessions lost", _sum(found, "accepted"), _sum(found, "accepted_lost")),
        ("packets of known sessions lost", _sum(found, "known"), _sum(found, "known_lost")),
    ):
        is_met = wrong == 0 and sent >= LEAST_PACKETS
        yield Goal(f"{text}, of {sent:,} during {applies} applies", "0 of a million", wrong, is_met)
    longer = (_worst(found, Situation.HERE) - _worst(found, Situation.QUIET)) / 1000
    yield Goal.at_most(MOST_LONGER, "longest wait during applies, less that without", longer, "ms")


def _sum(found: Streams, name: str) -> int:
    return sum(int(getattr(lost, name)) for lost in found.losses)


def _worst(found: Streams, situation: Situation) -> float:
    return max(waits.worst for waits in found.waits[situation.value].values())


def lines(found: Streams) -> Iterator[str]:
    """Yield all tables."""
    yield from goal_table(list(judge(found)))
    yield from table(
        ("change", "applies", "new sessions", "lost", "known sessions", "lost", "denied", "passed"),
        map(_row, found.losses),
    )
    yield from table(
        ("wait, µs: median, 99.9th percentile, worst", *(situation.value for situation in Situation)),
        ((stream.value, *(_waits(found, stream, situation) for situation in Situation)) for stream in Stream),
    )


def _row(lost: Losses) -> tuple[str, ...]:
    numbers = (lost.accepted, lost.accepted_lost, lost.known, lost.known_lost, lost.denied, lost.leaked)
    return (lost.change, str(lost.applies), *(f"{number:,}" for number in numbers))


def _waits(found: Streams, stream: Stream, situation: Situation) -> str:
    waits = found.waits[situation.value][stream.value]
    return ", ".join(map(figure, (waits.half, waits.most, waits.worst)))
