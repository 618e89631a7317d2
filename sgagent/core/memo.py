"""Memoize by identity: a step takes the last result if all that it depends on are the same objects.

Comparing by identity costs the same for values of any size. It is safe because the values are frozen, and
because a memo keeps what a result depends on alive as long as the result. It hits only if callers pass the
same object again where nothing has changed. ``docs/design.md`` lists what is memoized, and what that saves.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain, compress, count, repeat, starmap, zip_longest
from operator import is_, is_not
from typing import TypeVar, cast

T = TypeVar("T")


class Seam(enum.Enum):
    """The places where results are memoized, in the order of the pipeline."""

    PARSE_CACHE = "parse cache"
    RESOLVED_RULES = "resolved rules"
    DIRTY_CLASSES = "dirty classes"
    ADDRESS_MAP = "address map"
    COUNTER_CHAINS = "counter chains"


class Memo:
    """Hold the last result under each name; nothing older."""

    def __init__(self) -> None:
        """Start empty."""
        self._last: dict[str, object] = {}
        self._parts: dict[tuple[Hashable, ...], Memo] = {}
        self._asked: set[tuple[Hashable, ...]] = set()

    def part(self, seam: Seam, *of: Hashable) -> Memo:
        """Return the memo of a seam, for one object of it such as a file, a group or an interface."""
        key = (seam, *of)
        self._asked.add(key)
        return self._parts.setdefault(key, Memo())

    def turn(self) -> None:
        """Begin a step: forget the parts that the last step did not ask for."""
        self._parts = {key: part for key, part in self._parts.items() if key in self._asked}
        self._asked.clear()

    def get(self, name: str, given: tuple[object, ...], make: Callable[[], T]) -> T:
        """Return the last result if it was made of the same objects; else ``make`` one.

        Args:
            name: of the result.
            given: all that the result depends on.
            make: makes the result, without side effects.
        """
        found = cast("tuple[tuple[object, ...], T] | None", self._last.get(name))
        if found is None or len(found[0]) != len(given) or not all(map(is_, found[0], given)):
            self._last[name] = found = given, make()
        return found[1]

    def each(self, name: str, make: Callable[..., T], *given: Sequence[object]) -> tuple[T, ...]:
        """Return ``make``'s results for each place of some sequences of one length.

        If the same objects were together last time, in this place or in one where others are now, it is the
        last result. All results are in the same tuple as last time if nothing has changed.

        Args:
            name: of the results.
            make: takes one object of each sequence, and depends on nothing else.
            given: the sequences.
        """
        found = self._last.get(name, (((),) * len(given), ()))
        given_before, before = cast("tuple[tuple[Sequence[object], ...], tuple[T, ...]]", found)
        places = sorted(set(chain.from_iterable(map(_differing, given_before, given))))
        if not places:
            return before
        known = {_key(given_before, place): before[place] for place in places if place < len(before)}
        made = [*before[: len(given[0])], *repeat(cast("T", None), len(given[0]) - len(before))]
        for place in places[: bisect_left(places, len(made))]:
            key = _key(given, place)
            made[place] = known[key] if key in known else make(*(one[place] for one in given))
        results = tuple(made)
        self._last[name] = given, results
        return results

    def update(self, name: str, make: Callable[[T | None], T]) -> T:
        """Return ``make``'s result for the last result, or for None; the result must not depend on it."""
        made = make(cast("T | None", self._last.get(name)))
        self._last[name] = made
        return made

    def same(self, name: str, value: T) -> T:
        """Return the last value if this one equals it, so that comparing by identity succeeds; else this."""
        return self.update(name, lambda before: before if before is not None and before == value else value)


def _differing(before: Sequence[object], after: Sequence[object]) -> Iterator[int]:
    """Return the places at which two sequences hold different objects, or one has ended."""
    return compress(count(), starmap(is_not, zip_longest(before, after, fillvalue=_MISSING)))


def _key(sequences: Iterable[Sequence[object]], place: int) -> tuple[int, ...]:
    return tuple(id(one[place]) for one in sequences)


_MISSING = object()


def gone_and_come(before: Sequence[T], after: Sequence[T]) -> tuple[list[T], list[T]]:
    """Return the objects that are only in the first sequence, and those only in the second, in order.

    Neither sequence holds an object twice.
    """
    places = list(_differing(before, after))
    before, after = ([some[place] for place in places if place < len(some)] for some in (before, after))
    olds, news = set(map(id, before)), set(map(id, after))
    return [one for one in before if id(one) not in news], [one for one in after if id(one) not in olds]
