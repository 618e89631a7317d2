"""Sorted elements of a large map in blocks: a change of a few elements copies and compares a few hundred."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Self, overload

from sgagent.nft.ruleset import Element, Goto, Interval, Jump, KeyType, Value, VerdictMap, sort_key

_Part = tuple[Element, ...]

_FULL = 256
"""Elements of a part when it is made; one that has twice as many is divided."""


class Elements(Sequence[Element]):
    """Elements with a single number as their key, sorted; equal to a tuple of the same.

    They are held in parts. What becomes of them by a change has all parts in common with them but one.
    """

    def __init__(self, parts: tuple[_Part, ...] = ()) -> None:
        """Take the elements in parts, none of which is empty."""
        self.parts = parts

    @classmethod
    def of(cls, elements: Sequence[Element]) -> Self:
        """Return the elements, which are sorted."""
        starts = range(0, len(elements), _FULL)
        return cls(tuple(tuple(elements[start : start + _FULL]) for start in starts))

    def but(self, number: int, element: Element | None) -> Self:
        """Return all these, with another element for a number, be there one or not; None is none."""
        place = max(bisect_right(self.parts, number, key=_first) - 1, 0)
        part = self.parts[place] if self.parts else ()
        start = bisect_left(part, number, key=_number)
        stop = start + (start < len(part) and _number(part[start]) == number)
        revised = (*part[:start], *(() if element is None else (element,)), *part[stop:])
        middle = len(revised) if len(revised) < 2 * _FULL else _FULL
        halves = tuple(half for half in (revised[:middle], revised[middle:]) if half)
        return type(self)((*self.parts[:place], *halves, *self.parts[place + 1 :]))

    def without_parts_of(self, other: Elements) -> tuple[Element, ...]:
        """Return the elements in parts that the other has not."""
        known = set(map(id, other.parts))
        return tuple(chain.from_iterable(part for part in self.parts if id(part) not in known))

    @overload
    def __getitem__(self, place: int) -> Element: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Element, ...]: ...

    def __getitem__(self, place: int | slice) -> Element | tuple[Element, ...]:
        """Return one element, or some."""
        return tuple(self)[place]

    def __iter__(self) -> Iterator[Element]:
        """Yield all elements in order."""
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        """Return how many elements there are."""
        return sum(map(len, self.parts))

    def __eq__(self, other: object) -> bool:
        """Return whether the other has the same elements, in whatever parts."""
        if isinstance(other, Elements):
            return self.parts == other.parts or tuple(self) == tuple(other)
        return tuple(self) == other

    def __hash__(self) -> int:
        """Return what a tuple of the elements returns, which they are equal to."""
        return hash(tuple(self))


def _first(part: _Part) -> int:
    return _number(part[0])


def _number(element: Element) -> int:
    (value,) = element.key
    return value.first if isinstance(value, Interval) else -1


_DIGEST = 12
"""Hexadecimal digits; a clash would need millions of maps of one prefix."""


def fixed_map(
    prefix: str, key_types: tuple[KeyType, ...], elements: Iterable[Element], *, is_interval: bool
) -> VerdictMap:
    """Return a map whose name is a prefix and a digest of its elements.

    Args:
        prefix: of the name, which says what is looked up and where.
        key_types: of the fields of the key.
        elements: in any order.
        is_interval: whether keys may be ranges.
    """
    ordered = tuple(sorted(elements, key=lambda element: sort_key(element.key)))
    return VerdictMap(
        name=f"{prefix}/{_digest(ordered)}", key_types=key_types, is_interval=is_interval, elements=ordered
    )


def _digest(elements: tuple[Element, ...]) -> str:
    lines = (f"{','.join(map(_key_text, element.key))} {_verdict_text(element)}" for element in elements)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]


def _key_text(value: Value) -> str:
    return f"{value.first}-{value.last}" if isinstance(value, Interval) else f"={value.word}"


def _verdict_text(element: Element) -> str:
    verdict = element.verdict
    kind = type(verdict).__name__
    return f"{kind} {verdict.chain}" if isinstance(verdict, (Goto, Jump)) else kind
