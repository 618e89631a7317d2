"""Make a value of each of many, and again only of those that are not what they were.

Values are told apart by identity, as in :mod:`sgagent.core.memory`, and by the interpreter's own loops: that
ten thousand are what they were is known in less time than it takes to make ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import is_not
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Remade(Generic[Given, Made]):
    """What was made, and of what, in one order."""

    given: tuple[Given, ...]
    made: tuple[Made, ...]


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
        return Remade(given, tuple(map(make, given)))
    if given is before.given:
        return before
    if len(given) == len(before.given):
        return _remake_in_place(given, make, before)
    head, tail = common_ends(before.given, given)
    old = slice(head, len(before.given) - tail)
    known = dict(zip(map(id, before.given[old]), before.made[old], strict=True))
    middle = (known[id(one)] if id(one) in known else make(one) for one in given[head : len(given) - tail])
    return Remade(given, (*before.made[:head], *middle, *before.made[old.stop :]))


def _remake_in_place(
    given: tuple[Given, ...], make: Callable[[Given], Made], before: Remade[Given, Made]
) -> Remade[Given, Made]:
    """Return what is made of as many as before; some may only have moved."""
    places = changed_places(before.given, given)
    known = {id(before.given[place]): before.made[place] for place in places}
    made = list(before.made)
    has_changed = False
    for place in places:
        one = given[place]
        value = known[id(one)] if id(one) in known else make(one)
        if value != made[place]:
            made[place], has_changed = value, True
    return Remade(given, tuple(made) if has_changed else before.made)


def changed_places(before: Sequence[object], after: Sequence[object]) -> tuple[int, ...]:
    """Return where two sequences of one length do not hold the very same value."""
    if before is after:
        return ()
    return tuple(compress(count(), map(is_not, before, after)))


def common_ends(before: Sequence[object], after: Sequence[object]) -> tuple[int, int]:
    """Return how many of the very same values both begin with, and how many both end with behind these."""
    shorter = min(len(before), len(after))
    head = _common(before, after, shorter)
    return head, _common(reversed(before), reversed(after), shorter - head)


def _common(before: Iterable[object], after: Iterable[object], most: int) -> int:
    """Return how many of the very same values both begin with, at most so many."""
    return min(most, next(compress(count(), map(is_not, before, after)), most))
