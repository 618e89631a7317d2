"""Find rows of passages that stood in an earlier text too, so that of a long list only what is new is read.

A row is a stretch of a list whose items are passages: lists or mappings that hold no others. Most often two
texts differ in one place: what both begin with and what both end with holds the same rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from sgagent.documents.tree import Listing, Mapping


@dataclass(frozen=True, slots=True)
class Row:
    """Passages that stand in one list, one directly after the other."""

    starts: list[int] = field(default_factory=list)
    """Where each begins."""

    nodes: list[Listing | Mapping] = field(default_factory=list)
    """What each was read as."""

    def add(self, start: int, node: Listing | Mapping) -> None:
        """Take the next one."""
        self.starts.append(start)
        self.nodes.append(node)

    def extend(self, starts: list[int], nodes: list[Listing | Mapping]) -> None:
        """Take the next ones."""
        self.starts.extend(starts)
        self.nodes.extend(nodes)

    def part(self, first: int, end: int, shift: int) -> Row:
        """Return some of them, as they stand in a text in which they begin so much later."""
        starts = self.starts[first:end]
        return Row([start + shift for start in starts] if shift else starts, self.nodes[first:end])


FEW = 8
"""Passages up to which a row is not worth being remembered."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The longer rows of a text."""

    text: str
    rows: tuple[Row, ...]
    """In the order in which they begin."""

    @classmethod
    def of(cls, text: str, rows: list[Row]) -> Rows | None:
        """Return those of a text that are worth it; None if none are."""
        longer = tuple(row for row in rows if len(row.nodes) > FEW)
        return cls(text, longer) if longer else None


class Recurrence:
    """What of an earlier text stands in another."""

    def __init__(self, earlier: Rows, text: str) -> None:
        """Compare the texts."""
        self._rows = earlier.rows
        self._firsts = [row.starts[0] for row in earlier.rows]
        self._head = _common_start(earlier.text, text)
        most = min(len(earlier.text), len(text)) - self._head
        self._end = len(text)
        self._tail = len(text) - _common_end(earlier.text, text, most)
        self._shift = len(text) - len(earlier.text)

    def at(self, place: int) -> Row | None:
        """Return the passages of a row that begins there and is as it was, two at least.

        All but the last are as they were as a whole. Of that one only the first character is known.
        """
        if place < self._head:
            shift, end = 0, self._head
        elif place >= self._tail:
            shift, end = self._shift, self._end
        else:
            return None
        number = bisect_right(self._firsts, place - shift) - 1
        if number < 0:
            return None
        row = self._rows[number]
        first, behind = (bisect_left(row.starts, wanted - shift) for wanted in (place, end))
        if behind - first < 2 or row.starts[first] != place - shift:
            return None
        return row.part(first, behind, shift)


_BLOCK = 1 << 14
"""Characters that are compared at once, until there is a difference."""


def _common_start(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    shorter = min(len(one), len(other))
    place, step = 0, _BLOCK
    while step:
        while place + step <= shorter and one[place : place + step] == other[place : place + step]:
            place += step
        step //= 2
    return place


def _common_end(one: str, other: str, most: int) -> int:
    """Return how many characters both end with, at most so many."""
    length, step = 0, _BLOCK
    ends = len(one), len(other)
    while step:
        while length + step <= most and _end(one, ends[0] - length, step) == _end(
            other, ends[1] - length, step
        ):
            length += step
        step //= 2
    return length


def _end(text: str, place: int, length: int) -> str:
    return text[place - length : place]
