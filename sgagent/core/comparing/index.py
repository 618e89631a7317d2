"""Find the areas of a table that meet another, without looking at all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sgagent.core.comparing.bits import bits_of
from sgagent.core.comparing.opencells import Columns
from sgagent.core.comparing.table import Area, Table


@dataclass(frozen=True, slots=True)
class Index:
    """Finds the areas of a table that meet another, as a set of their numbers."""

    _by_rows: _Crowd
    _by_columns: _Crowd
    _known: dict[Columns, int]

    @classmethod
    def of(cls, table: Table) -> Index:
        """Return the index of a table."""
        rows: dict[int, int] = {}
        alike: dict[Columns, int] = {}
        for number, area in enumerate(table.areas):
            alike[area.columns] = alike.get(area.columns, 0) | 1 << number
            for first, last in area.rows:
                rows[first] = rows.get(first, 0) ^ 1 << number
                rows[last + 1] = rows.get(last + 1, 0) ^ 1 << number
        columns: dict[int, int] = {}
        for held, numbers in alike.items():
            for border in bits_of(held ^ held << 1):
                columns[border] = columns.get(border, 0) ^ numbers
        return cls(_Crowd(rows, len(table.starts)), _Crowd(columns, table.every_column.bit_length()), {})

    def at(self, row: int) -> int:
        """Return the numbers of all areas with a cell in a row, as bits."""
        return self._by_rows.anywhere(((row, row),))

    def meeting(self, area: Area) -> int:
        """Return the numbers of all areas with a cell in common with one, as bits."""
        found = self._known.get(area.columns)
        if found is None:
            borders = list(bits_of(area.columns ^ area.columns << 1))
            runs = zip(borders[::2], borders[1::2], strict=True)
            found = self._by_columns.anywhere((first, end - 1) for first, end in runs)
            self._known[area.columns] = found
        return found & self._by_rows.anywhere(area.rows)


class _Crowd:
    """Sets that hold runs of places: which of them hold any place of a run."""

    def __init__(self, changes: Mapping[int, int], places: int) -> None:
        """Take which sets begin or end at a place, as bits of their numbers."""
        self._size = 1 << max(places - 1, 0).bit_length()
        nodes, here = [0] * (2 * self._size), 0
        for place in range(places):
            here ^= changes.get(place, 0)
            nodes[self._size + place] = here
        for node in range(self._size - 1, 0, -1):
            left, right = nodes[2 * node], nodes[2 * node + 1]
            nodes[node] = left if left == right else left | right
        self._nodes = nodes

    def anywhere(self, runs: Iterable[tuple[int, int]]) -> int:
        """Return the sets that hold any place of some runs."""
        nodes, found = self._nodes, 0
        for first, last in runs:
            left, right = first + self._size, last + self._size + 1
            while left < right:
                if left & 1:
                    found |= nodes[left]
                    left += 1
                if right & 1:
                    right -= 1
                    found |= nodes[right]
                left >>= 1
                right >>= 1
        return found
