"""Parse cache of one file: after a change, the parser reads only the changed passages.

A passage is the source text of a list or mapping that contains no other. Its value depends only on its text,
except for its place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from typing import TypeVar, cast

from sgagent.documents.problems import Budget, Findings
from sgagent.documents.tree import Listing, Mapping, Node


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive passages of one list."""

    starts: list[int] = field(default_factory=list)
    """The offset of each in the text."""

    nodes: list[Listing | Mapping] = field(default_factory=list)
    """The node of each."""

    def add(self, start: int, node: Listing | Mapping) -> None:
        """Append a passage."""
        self.starts.append(start)
        self.nodes.append(node)

    def extend(self, starts: list[int], nodes: list[Listing | Mapping]) -> None:
        """Append passages."""
        self.starts.extend(starts)
        self.nodes.extend(nodes)

    def part(self, first: int, end: int, shift: int) -> Row:
        """Return a slice with all offsets moved by ``shift``."""
        starts = self.starts[first:end]
        return Row([start + shift for start in starts] if shift else starts, self.nodes[first:end])


FEW = 8
"""The cache omits rows of at most this many passages."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The cached rows of a text."""

    text: str
    rows: tuple[Row, ...]
    """Sorted by offset."""

    @classmethod
    def of(cls, text: str, rows: list[Row]) -> Rows | None:
        """Return the rows of a text that are long enough to cache; None if there are none."""
        longer = tuple(row for row in rows if len(row.nodes) > FEW)
        return cls(text, longer) if longer else None


class Recurrence:
    """The rows of a previous text that the new text still contains, at its start or its end."""

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
        """Return the unchanged passages of a row from an offset on; None if fewer than two are.

        All passages but the last are unchanged as a whole; only the first character of the last is.
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
"""Characters compared in one step; halved at each difference."""


def _common_start(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    shorter = min(len(one), len(other))
    place, step = 0, _BLOCK
    while step:
        while place + step <= shorter and one[place : place + step] == other[place : place + step]:
            place += step
        step //= 2
    return place


def _common_end(one: str, other: str, most: int) -> int:
    """Return the length of the common suffix, at most ``most``."""
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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    """The value of a passage without problems, and the budget that it used."""

    written: str
    value: object
    rules: int
    addresses: int


@dataclass(frozen=True, slots=True)
class PassageList:
    """The cached result for each item of a list."""

    nodes: Sequence[Node]
    passages: Sequence[ParsedPassage | None]
    """None for an item that is no passage or has a problem."""

    def again(self, nodes: Sequence[Node]) -> list[ParsedPassage | None]:
        """Return the cached result for each item of the new list; None for a changed item."""
        together = zip_longest(nodes, self.nodes[: len(nodes)], self.passages[: len(nodes)])
        return [passage if node is old else None for node, old, passage in together]


class ParseCache:
    """The cached passages of one file."""

    def __init__(self, before: ParseCache | None = None) -> None:
        """Start a reading; ``before`` is the cache of the previous one."""
        self._before = before
        self._now: dict[Hashable, dict[str, ParsedPassage]] = {}
        self._lists: dict[tuple[Hashable, str], PassageList] = {}
        self.rows: Rows | None = None
        """The long rows of the text."""

    @property
    def earlier_rows(self) -> Rows | None:
        """Return the long rows of the previous text."""
        return None if self._before is None else self._before.rows

    def recall(
        self, of: Hashable, written: str, make: Callable[[], T], findings: Findings, budget: Budget
    ) -> T:
        """Return the cached value of a passage, at any previous place, or call ``make``.

        Args:
            of: the kind of value, a cache key beside the text.
            written: the passage.
            make: parses the passage, adds problems and uses up the budget.
            findings: receives the problems; a value with problems is not cached, because they name a place.
            budget: what the value uses up.
        """
        found = None if self._before is None else self._before.kept(of, written)
        if found is not None and budget.has_room_for(found.rules, found.addresses):
            budget.use_up(found.rules, found.addresses)
            self._keep(of, (found,))
            return cast("T", found.value)
        mark, rules, addresses = findings.mark(), budget.rules, budget.addresses
        value = make()
        if findings.warnings_since(mark) == ():
            used = budget.rules - rules, budget.addresses - addresses
            self._keep(of, (ParsedPassage(written, value, *used),))
        return value

    def recall_each(
        self, of: Hashable, path: str, nodes: Sequence[Node], make: Callable[[int], T], budget: Budget
    ) -> list[T]:
        """Return the value of each item of a list.

        An item that is the identical node at the identical index takes its cached value.

        Args:
            of: the kind of value, a cache key.
            path: the path of the list.
            nodes: its items.
            make: returns the value of the item at an index.
            budget: what the values use up.
        """
        before = None if self._before is None else self._before.listed(of, path)
        found: list[ParsedPassage | None] = [None] * len(nodes) if before is None else before.again(nodes)
        values = [passage and passage.value for passage in found]
        for is_known, places in groupby(range(len(nodes)), lambda place: found[place] is not None):
            together = tuple(places)
            known = found[together[0] : together[-1] + 1]
            if is_known and self._takes(of, [passage for passage in known if passage is not None], budget):
                continue
            for place in together:
                values[place] = make(place)
                found[place] = self._kept_with(of, nodes[place], values[place])
        self._lists[of, path] = PassageList(nodes, found)
        return cast("list[T]", values)

    def _takes(self, of: Hashable, passages: Sequence[ParsedPassage], budget: Budget) -> bool:
        """Use up the budget of consecutive passages and cache them; False if the budget is too small."""
        rules = sum(passage.rules for passage in passages)
        addresses = sum(passage.addresses for passage in passages)
        if not budget.has_room_for(rules, addresses):
            return False
        budget.use_up(rules, addresses)
        self._keep(of, passages)
        return True

    def _keep(self, of: Hashable, passages: Iterable[ParsedPassage]) -> None:
        self._now.setdefault(of, {}).update((passage.written, passage) for passage in passages)

    def _kept_with(self, of: Hashable, node: Node, value: object) -> ParsedPassage | None:
        """Return the cached passage of a value; None if the cache omits it."""
        if not isinstance(node, (Listing, Mapping)):
            return None
        passage = self.kept(of, node.written)
        return passage if passage is not None and passage.value is value else None

    def listed(self, of: Hashable, path: str) -> PassageList | None:
        """Return the results for a list in this reading."""
        return self._lists.get((of, path))

    def kept(self, of: Hashable, written: str) -> ParsedPassage | None:
        """Return the result for a passage in this reading."""
        return self._now.get(of, {}).get(written)

    def replace(self, of: Hashable, written: str, value: object) -> None:
        """Replace the cached value of a passage by an equal one with another place."""
        found = self.kept(of, written)
        if found is not None:
            self._keep(of, (ParsedPassage(written, value, found.rules, found.addresses),))

    def end(self) -> None:
        """Drop the cache of the previous reading."""
        self._before = None
