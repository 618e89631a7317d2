"""Make a value of each of many, and again only of those that are not what they were.

Values are told apart by identity, as in :mod:`sgagent.core.memory`, and by the interpreter's own loops: that
ten thousand are what they were is known in less time than it takes to make ten. Where others were put in the
places of a few, even that is not asked: these places are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import is_not
from typing import Generic, Self, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Revised(tuple[Made, ...]):  # noqa: SLOT001 - Python gives slots to no subclass of tuple but empty ones
    """Values in order which know in which places others stood before.

    To everybody but :func:`changed_places` it is a tuple like any other.
    """

    def __new__(cls, values: Iterable[Made] = (), *_: object) -> Self:
        """Make the tuple."""
        return super().__new__(cls, values)

    def __init__(
        self, _values: Iterable[Made] = (), before: object = None, places: tuple[int, ...] = ()
    ) -> None:
        """Take the values.

        Args:
            before: the mark of those before, which are not kept alive for it; None where there were none.
            places: where others stood then.
        """
        self._mark = object()
        self._before = before
        self._places = places

    def but(self, others: Mapping[int, Made]) -> Self:
        """Return the values with others in some places; itself, if they stand there already."""
        places = sorted(place for place, other in others.items() if self[place] is not other)
        if not places:
            return self
        values = list(self[:])
        for place in places:
            values[place] = others[place]
        return type(self)(values, self._mark, tuple(places))

    def places_changed_since(self, other: Revised[object]) -> tuple[int, ...] | None:
        """Return where others stood before; None if that were not these others."""
        return self._places if self._before is other._mark else None


@dataclass(frozen=True, slots=True)
class Remade(Generic[Given, Made]):
    """What was made, and of what, in one order."""

    given: tuple[Given, ...]
    made: Revised[Made]


def remake(
    given: tuple[Given, ...], make: Callable[[Given], Made], before: Remade[Given, Made] | None
) -> Remade[Given, Made]:
    """Return what is made of each.

    What is equal to what stood in its place before is that very value; so are all, if all are.

    Args:
        given: what to make something of.
        make: makes it, without any effect.
        before: what this function returned for others, with a ``make`` that does the same.
    """
    if before is None:
        return Remade(given, Revised(map(make, given)))
    if given is before.given:
        return before
    if len(given) == len(before.given):
        return _remake_in_place(given, make, before)
    head, tail = common_ends(before.given, given)
    old = slice(head, len(before.given) - tail)
    known = dict(zip(map(id, before.given[old]), before.made[old], strict=True))
    middle = (known[id(one)] if id(one) in known else make(one) for one in given[head : len(given) - tail])
    return Remade(given, Revised((*before.made[:head], *middle, *before.made[old.stop :])))


def _remake_in_place(
    given: tuple[Given, ...], make: Callable[[Given], Made], before: Remade[Given, Made]
) -> Remade[Given, Made]:
    """Return what is made of as many as before; some may only have moved."""
    places = changed_places(before.given, given)
    known = {id(before.given[place]): before.made[place] for place in places}
    revised: dict[int, Made] = {}
    for place in places:
        one = given[place]
        value = known[id(one)] if id(one) in known else make(one)
        if value != before.made[place]:
            revised[place] = value
    return Remade(given, before.made.but(revised))


def changed_places(before: Sequence[object], after: Sequence[object]) -> tuple[int, ...]:
    """Return where two sequences of one length do not hold the very same value."""
    if before is after:
        return ()
    if isinstance(before, Revised) and isinstance(after, Revised):
        places = after.places_changed_since(before)
        if places is not None:
            return places
    return tuple(compress(count(), map(is_not, before, after)))


def gone_and_come(before: Sequence[Made], after: Sequence[Made]) -> tuple[list[Made], list[Made]]:
    """Return the values that are not in the second sequence, and those that are not in the first, in order.

    Values that only moved are in neither.
    """
    if len(before) == len(after):
        places = changed_places(before, after)
        left, right = [before[place] for place in places], [after[place] for place in places]
    else:
        head, tail = common_ends(before, after)
        left, right = list(before[head : len(before) - tail]), list(after[head : len(after) - tail])
    moved = set(map(id, left)).intersection(map(id, right))
    return [one for one in left if id(one) not in moved], [one for one in right if id(one) not in moved]


def common_ends(before: Sequence[object], after: Sequence[object]) -> tuple[int, int]:
    """Return how many of the very same values both begin with, and how many both end with behind these."""
    shorter = min(len(before), len(after))
    head = _common(before, after, shorter)
    return head, _common(reversed(before), reversed(after), shorter - head)


def _common(before: Iterable[object], after: Iterable[object], most: int) -> int:
    """Return how many of the very same values both begin with, at most so many."""
    return min(most, next(compress(count(), map(is_not, before, after)), most))
