"""Remember what passages of a file came to, so that where the file changed only what is new in it is judged.

A passage is a list or mapping that holds no other, by the very way it is written. What comes of it depends on
nothing else, but for the place at which it stands.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar, cast

from sgagent.core.memo import changed_places, common_ends
from sgagent.documents.findings import Budget, Findings
from sgagent.documents.tree import Listing, Mapping, Node


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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    """What a passage came to without any problem, and what that used up."""

    written: str
    value: object
    rules: int
    addresses: int


@dataclass(frozen=True, slots=True)
class PassageList:
    """What each item of a list came to where it stands."""

    nodes: Sequence[Node]
    passages: Sequence[ParsedPassage | None]
    """None if it is no passage, or not without a problem."""

    def again(self, nodes: Sequence[Node]) -> list[ParsedPassage | None]:
        """Return what the items of a list at that place come to; None where that is not known."""
        if len(nodes) != len(self.nodes):
            head, _ = common_ends(self.nodes, nodes)
            return [*self.passages[:head], *[None] * (len(nodes) - head)]
        found = list(self.passages)
        for place in changed_places(self.nodes, nodes):
            found[place] = None
        return found


class Passages:
    """Those of one file."""

    def __init__(self, before: Passages | None = None) -> None:
        """Begin to read the file, with what it came to the last time."""
        self._before = before
        self._now: dict[Hashable, dict[str, ParsedPassage]] = {}
        self._lists: dict[tuple[Hashable, str], PassageList] = {}
        self.rows: Rows | None = None
        """What long lists of them the text holds."""

    @property
    def earlier_rows(self) -> Rows | None:
        """Return what long lists the text held the last time."""
        return None if self._before is None else self._before.rows

    def recall(
        self, of: Hashable, written: str, make: Callable[[], T], findings: Findings, budget: Budget
    ) -> T:
        """Return what a passage came to the last time, wherever it stood, or make it.

        Args:
            of: what is made of it.
            written: the passage.
            make: makes it, notes what is wrong, and uses up what it holds.
            findings: where that is noted; what is noted has a place, so the value is not kept.
            budget: what is used up.
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
        """Return what each item of a list comes to.

        Those that are the very same nodes as the last time, at their places, come to what they came to then.

        Args:
            of: what is made of each.
            path: the way to the list.
            nodes: its items.
            make: recalls or makes one, told by its place, as it is at that place.
            budget: what is used up.
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
        """Use up what passages that follow each other hold, and keep them, if there is room."""
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
        """Return the passage with a value that was just made or recalled; None if it is not kept."""
        if not isinstance(node, (Listing, Mapping)):
            return None
        passage = self.kept(of, node.written)
        return passage if passage is not None and passage.value is value else None

    def listed(self, of: Hashable, path: str) -> PassageList | None:
        """Return what the items of a list came to in this reading."""
        return self._lists.get((of, path))

    def kept(self, of: Hashable, written: str) -> ParsedPassage | None:
        """Return what a passage came to in this reading."""
        return self._now.get(of, {}).get(written)

    def replace(self, of: Hashable, written: str, value: object) -> None:
        """Keep another value for a passage that was just recalled: it is the same but for its place."""
        found = self.kept(of, written)
        if found is not None:
            self._keep(of, (ParsedPassage(written, value, found.rules, found.addresses),))

    def end(self) -> None:
        """End the reading: of the one before nothing is needed any more."""
        self._before = None
