"""Bit sets: sets of small integers as one large integer, so that one operation handles all members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def bits_of(number: int) -> Iterator[int]:
    """Yield the places of the bits that are set, the lowest first."""
    text = bin(number)[:1:-1]
    place = text.find("1")
    while place >= 0:
        yield place
        place = text.find("1", place + 1)


def number_of(places: Sequence[int]) -> int:
    """Return the number whose bits at some places are set; the places rise."""
    octets = bytearray(places[-1] // 8 + 1 if places else 0)
    for place in places:
        octets[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(octets, "little")


Columns = int
"""A set of columns: bit ``n`` is column ``n``."""

Run = tuple[int, int]
"""First and last row."""

Rows = tuple[Run, ...]
"""Sorted runs."""

Piece = tuple[int, int, Columns]
"""First and last row, and columns."""


class Open:
    """The cells of a table that nothing has taken yet: a tree over the rows.

    A node holds the columns that are open in some row below it. Taking a whole node does not update the nodes
    below. So a column of a row is open if it is open in the row's node and in all nodes above it.
    """

    def __init__(self, rows: int, every_column: Columns, within: Sequence[Columns] | None) -> None:
        """Open the cells that are of interest; None is every one."""
        self._size = 1 << max(rows - 1, 0).bit_length()
        if within is None:
            within = [every_column] * rows
        nodes = [0] * self._size + list(within) + [0] * (self._size - rows)
        for node in range(self._size - 1, 0, -1):
            left, right = nodes[2 * node], nodes[2 * node + 1]
            nodes[node] = left if left is right else left | right
        self._nodes = nodes
        self._undo: list[tuple[int, Columns]] | None = None

    def take(self, rows: Rows, columns: Columns) -> Columns:
        """Take cells, and return the columns of those that were open."""
        taken = 0
        for run in rows:
            taken |= self._take(1, (0, self._size - 1), run, columns)
        return taken

    def try_out(self) -> None:
        """Remember the cells taken from now on, so that they can be put back."""
        self._undo = []

    def put_back(self) -> None:
        """Open again the cells taken since :meth:`try_out`."""
        for node, columns in reversed(self._undo or ()):
            self._nodes[node] = columns
        self._undo = None

    def has(self, rows: Rows, columns: Columns) -> bool:
        """Return whether any of some cells is open."""
        return next(self.pieces(rows, columns), None) is not None

    def pieces(self, rows: Rows, columns: Columns) -> Iterator[Piece]:
        """Yield the open ones of some cells: first and last row, and columns."""
        for run in rows:
            yield from self._pieces(1, (0, self._size - 1), run, columns)

    def _take(self, node: int, below: Run, run: Run, columns: Columns) -> Columns:
        """Take cells of a run of rows, in a node and the rows below it."""
        nodes, (start, end), (first, last) = self._nodes, below, run
        columns &= nodes[node]
        if not columns:
            return 0
        if first <= start and end <= last:
            self._set(node, nodes[node] ^ columns)
            return columns
        middle, taken = (start + end) // 2, 0
        if first <= middle:
            taken |= self._take(2 * node, (start, middle), run, columns)
        if last > middle:
            taken |= self._take(2 * node + 1, (middle + 1, end), run, columns)
        if taken:
            self._set(node, nodes[node] & (nodes[2 * node] | nodes[2 * node + 1]))
        return taken

    def _set(self, node: int, columns: Columns) -> None:
        if self._undo is not None:
            self._undo.append((node, self._nodes[node]))
        self._nodes[node] = columns

    def _pieces(self, node: int, below: Run, run: Run, columns: Columns) -> Iterator[Piece]:
        (start, end), (first, last) = below, run
        columns &= self._nodes[node]
        if not columns or end < first or last < start:
            return
        if start == end:
            yield start, end, columns
        else:
            middle = (start + end) // 2
            yield from self._pieces(2 * node, (start, middle), run, columns)
            yield from self._pieces(2 * node + 1, (middle + 1, end), run, columns)
