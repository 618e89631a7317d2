"""Memoize pure functions by the identity of their arguments, from one step to the next.

Comparing by identity costs the same for values of any size. It is safe because the values are frozen, and
because the cache keeps each argument alive as long as its result. It hits only if callers pass the same
object again where nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import is_not
from typing import Generic, Self, TypeVar, cast

T = TypeVar("T")


class Memory:
    """Hold what was asked for in this step and in the one before, and nothing older."""

    def __init__(self) -> None:
        """Start without any memory."""
        self._now: dict[tuple[int, ...], tuple[tuple[object, ...], object]] = {}
        self._before: dict[tuple[int, ...], tuple[tuple[object, ...], object]] = {}
        self._parts: dict[tuple[Hashable, ...], Memory] = {}

    def part(self, *of: Hashable) -> Memory:
        """Return a memory apart, for one function and for values that are compared as such."""
        found = self._parts.get(of)
        if found is None:
            found = self._parts[of] = Memory()
        return found

    def apart(self, *of: Hashable) -> Memory:
        """Return a memory that only its user turns: it outlasts steps in which it has nothing to do."""
        kept = self.part(*of)
        found = kept.last()
        memory = found if isinstance(found, Memory) else Memory()
        kept.keep(memory)
        return memory

    def recall(self, given: tuple[object, ...], make: Callable[[], T]) -> T:
        """Return the cached result for these arguments, or compute it.

        Args:
            given: everything that the result depends on, besides the key of this part.
            make: computes the result, without side effects.
        """
        key = tuple(map(id, given))
        found = self._now.get(key)
        if found is None:
            found = self._before.get(key) or (given, make())
            self._now[key] = found
        return cast("T", found[1])

    def revise(self, make: Callable[[T | None], T]) -> T:
        """Return what ``make`` makes of what it made last; of None at first.

        It has to return the same, whatever it is given.
        """
        made = make(cast("T | None", self.last()))
        self.keep(made)
        return made

    def last(self) -> object:
        """Return what was kept last, in this step or in the one before; None if nothing was."""
        found = self._now.get(()) or self._before.get(())
        return None if found is None else found[1]

    def keep(self, value: object) -> None:
        """Keep a value for this step and the next."""
        self._now[()] = ((), value)

    def turn(self) -> None:
        """Begin a step: forget what was not asked for in the last."""
        self._before, self._now = self._now, {}
        for part in self._parts.values():
            part.turn()
        self._parts = {of: part for of, part in self._parts.items() if not part.is_empty}

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to forget."""
        return not (self._now or self._before or self._parts)


def same_if_equal(made: T, before: T | None) -> T:
    """Return the earlier value if the new one equals it, so that later comparisons by identity succeed."""
    return before if before == made and before is not None else made


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
        """Return the values with some replaced; itself if each replacement is already in its place."""
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
    """Return the indices at which two sequences of equal length hold different objects."""
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
    """Return the lengths of the common prefix and of the common suffix after it, by identity."""
    shorter = min(len(before), len(after))
    head = _common(before, after, shorter)
    return head, _common(reversed(before), reversed(after), shorter - head)


def _common(before: Iterable[object], after: Iterable[object], most: int) -> int:
    """Return the length of the common prefix by identity, limited to ``most``."""
    return min(most, next(compress(count(), map(is_not, before, after)), most))
