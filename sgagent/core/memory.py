"""Remember what functions without effects returned for the very same values, from one step to the next.

The values are told apart by identity, which costs nothing however large they are. That is safe since they are
frozen, and since each is kept for as long as what was made of it. It helps as far as whoever makes them hands
over the same one again where nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

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
        """Return what was made of the very same values before, or make it.

        Args:
            given: all that the result depends on, apart from what the part is for.
            make: makes it, without any effect.
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
        """Tell whether there is nothing to forget."""
        return not (self._now or self._before or self._parts)


def same_if_equal(made: T, before: T | None) -> T:
    """Return the value of before if it is equal, so that nobody has to compare it again."""
    return before if before == made and before is not None else made
