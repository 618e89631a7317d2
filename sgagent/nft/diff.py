"""The diff of two tables, by object and element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import is_not
from typing import Generic, Self, TypeVar

from sgagent.nft.ruleset import Chain, Counter, Element, VerdictMap

_Object = TypeVar("_Object", Chain, Counter, VerdictMap)


@dataclass(frozen=True, slots=True)
class Differing(Generic[_Object]):
    """The objects of one kind that differ between two tables.

    :meth:`between` compares by identity, because most objects are unchanged.
    """

    standing: Mapping[str, _Object]
    wanted: Mapping[str, _Object]
    names: frozenset[str]
    """Of those that differ, come, or go."""

    @classmethod
    def between(cls, standing: Mapping[str, _Object], wanted: Mapping[str, _Object]) -> Self:
        """Compare all objects of a kind, by name."""
        return cls(standing, wanted, _differing_names(standing, wanted))

    def leaving(self, same: Callable[[_Object, _Object], bool]) -> frozenset[str]:
        """Return the names of objects to delete, including those that the plan declares again."""
        return frozenset(
            name
            for name in self.names & self.standing.keys()
            if (other := self.wanted.get(name)) is None or not same(self.standing[name], other)
        )

    def standing_ones(self) -> Iterator[_Object]:
        """Yield the objects that stand and differ, or go."""
        return (self.standing[name] for name in self.names & self.standing.keys())

    def wanted_ones(self, also: frozenset[str] = frozenset()) -> tuple[_Object, ...]:
        """Return the objects that are wanted and differ, or are to come, and some others, in order."""
        names = (self.names | also) & self.wanted.keys()
        return tuple(self.wanted[name] for name in sorted(names))


def _differing_names(standing: Mapping[str, _Object], wanted: Mapping[str, _Object]) -> frozenset[str]:
    """Return the names of objects that differ, come, or go."""
    if standing is wanted:
        return frozenset()
    names = set(compress(wanted, map(is_not, map(standing.get, wanted), wanted.values())))
    coming = names - standing.keys()
    if len(wanted) - len(coming) < len(standing):
        names |= standing.keys() - wanted.keys()
    return frozenset(names)


def differing_elements(
    elements: Sequence[Element], others: Sequence[Element]
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return the elements that are not among the others, and those of the others that are not among these.

    Both are sorted, so what they have in common at either end is left out first: of 100,000 elements of which
    one changed, comparing takes a moment where hashing them all would take a second.
    """
    if elements is others:
        return (), ()
    left, right = _between_common_ends(tuple(elements), tuple(others))
    among_left, among_right = set(left), set(right)
    gone = tuple(element for element in left if element not in among_right)
    return gone, tuple(element for element in right if element not in among_left)


def _between_common_ends(
    elements: tuple[Element, ...], others: tuple[Element, ...]
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return what both have between the elements that they begin with, and those that they end with."""
    shorter = min(len(elements), len(others))
    head = _common(elements, others, shorter)
    tail = _common(elements[head:][::-1], others[head:][::-1], shorter - head)
    return elements[head : len(elements) - tail], others[head : len(others) - tail]


def _common(elements: tuple[Element, ...], others: tuple[Element, ...], most: int) -> int:
    """Return the length of the common prefix, limited to ``most``.

    This is a binary search over slices: most elements are identical objects, and tuples of identical objects
    compare fast.
    """
    start, stop = 0, most
    while start < stop:
        middle = (start + stop + 1) // 2
        if elements[start:middle] == others[start:middle]:
            start = middle
        else:
            stop = middle - 1
    return start


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObjects:
    """What is in the table and can't be read as what sgagent makes."""

    is_asleep: bool
    """Whether the table has the flag ``dormant``: the kernel calls none of its chains."""

    rules_in: frozenset[str]
    """Chains with a rule that can't be read."""

    policies_of: frozenset[str]
    """Base chains that don't accept by default."""

    chains: tuple[str, ...]
    others: tuple[tuple[str, str], ...]
    """Kind and name."""

    @classmethod
    def parse(cls, foreign: Iterable[str]) -> ForeignObjects:
        """Sort the names of foreign things by kind."""
        named = [_kind_and_name(text) for text in sorted(foreign)]
        return cls(
            is_asleep=any(kind == "table" for kind, _ in named),
            rules_in=frozenset(name for kind, name in named if kind == "rule"),
            policies_of=frozenset(name for kind, name in named if kind == "policy"),
            chains=tuple(name for kind, name in named if kind == "chain"),
            others=tuple(
                (kind, name) for kind, name in named if kind not in ("table", "rule", "policy", "chain")
            ),
        )


def _kind_and_name(text: str) -> tuple[str, str]:
    """Return the kind and the name; the kinds of connection tracking's objects are two words."""
    kind, _, name = text.partition(" ")
    if kind == "ct":
        second, _, name = name.partition(" ")
        return f"ct {second}", name
    return kind, name
