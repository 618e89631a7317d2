"""Hold very many elements of a map so that a change of a few of them copies, and compares, a few hundred."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Self, overload

from sgagent.core.kernel.ruleset import Element, Interval

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
        """Tell whether the other has the same elements, in whatever parts."""
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
