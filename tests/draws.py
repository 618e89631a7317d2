"""Sources of chance for generators: a seed, which names a case, or Hypothesis, which shrinks what it drew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence, Sized
from functools import cache
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Draws(ABC):
    """Draw numbers, and all else from numbers; zero stands for the simplest."""

    @abstractmethod
    def number(self, size: int) -> int:
        """Draw a number of so many bytes, each as likely as the others."""

    @abstractmethod
    def item(self, make: Callable[[Draws], T]) -> T:
        """Draw what is made of a few draws of its own."""

    @abstractmethod
    def many(self, make: Callable[[Draws], T], most: int, *, is_full: bool = False) -> list[T]:
        """Draw a list of at most so many items; a full one is shorter only where Hypothesis shrinks.

        Each item is made of draws of its own, so that it stays the same when others go.
        """

    def randint(self, first: int, last: int) -> int:
        """Draw a number, both ends included; in large ranges only every so many can be drawn."""
        count = last - first + 1
        size = 1 if count <= 1 << 8 else 2 if count <= 1 << 16 else 4
        return first + (self.number(size) * count >> 8 * size)

    def index(self, things: Sized) -> int:
        """Draw a place in things; the first is the simplest."""
        return self.randint(0, len(things) - 1)

    def choice(self, options: Sequence[T]) -> T:
        """Draw one of some options; the first is the simplest."""
        return options[self.index(options)]

    def chance(self, percent: int) -> bool:
        """Draw whether something happens that happens so often; that it does not is simpler."""
        return self.randint(0, 99) >= 100 - percent

    def sample(self, options: Iterable[T], count: int) -> list[T]:
        """Draw so many different options, in any order."""
        left = list(options)
        return [left.pop(self.index(left)) for _ in range(count)]

    def shuffled(self, options: Iterable[T]) -> list[T]:
        """Draw an order; the simplest is the given one."""
        listed = list(options)
        return self.sample(listed, len(listed))


class SeededDraws(Draws):
    """Draw what a seed says."""

    def __init__(self, seed: int) -> None:
        """Start at the beginning."""
        self._random = Random(seed)

    def number(self, size: int) -> int:
        """Draw a number of so many bytes."""
        return self._random.getrandbits(8 * size)

    def item(self, make: Callable[[Draws], T]) -> T:
        """Draw an item."""
        return make(self)

    def many(self, make: Callable[[Draws], T], most: int, *, is_full: bool = False) -> list[T]:
        """Draw a list; each length is as likely as the others."""
        return [make(self) for _ in range(most if is_full else self._random.randint(0, most))]


class HypothesisDraws(Draws):
    """Let Hypothesis draw, while the example lasts; what is drawn is not printed."""

    def __init__(self, draw: st.DrawFn) -> None:
        """Draw by the function of a strategy."""
        self._draw = draw

    def number(self, size: int) -> int:
        """Draw a number of so many bytes; Hypothesis would prefer small ones to large integers."""
        return int.from_bytes(self._draw(_bytes(size)))

    def item(self, make: Callable[[Draws], T]) -> T:
        """Draw an item, which is one draw for Hypothesis: so shrinking is simple, and drawing fast."""
        return make(_ByteDraws(self._draw(_bytes(_ITEM_BYTES))))

    def many(self, make: Callable[[Draws], T], most: int, *, is_full: bool = False) -> list[T]:
        """Draw a list, of which Hypothesis can remove any item, whatever the least number of items was."""
        least = (most if self.number(1) else 0) if is_full else self.choice(_LEAST) * most // 4
        return [make(_ByteDraws(drawn)) for drawn in self._draw(_items(least, most))]

    def __repr__(self) -> str:
        """Say what it is, in the place of all that was drawn."""
        return "draws"


class _ByteDraws(Draws):
    """Draw what bytes say, and zeros behind their end."""

    def __init__(self, drawn: bytes) -> None:
        self._drawn = drawn
        self._place = 0

    def number(self, size: int) -> int:
        first, self._place = self._place, self._place + size
        return int.from_bytes(self._drawn[first : self._place])

    def item(self, make: Callable[[Draws], T]) -> T:
        return make(self)

    def many(self, make: Callable[[Draws], T], most: int, *, is_full: bool = False) -> list[T]:
        return [make(self) for _ in range(most if is_full else self.randint(0, most))]


_LEAST = (0, 0, 1, 2, 4)
"""The least items of a list, in quarters of the most: Hypothesis would seldom make more than a few."""

_ITEM_BYTES = 32
"""More than most items take."""


@cache
def _bytes(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


@cache
def _items(least: int, most: int) -> st.SearchStrategy[list[bytes]]:
    # Were a list of a fixed length, Hypothesis could remove none of its items.
    return st.lists(_bytes(_ITEM_BYTES), min_size=least, max_size=most + 1)
