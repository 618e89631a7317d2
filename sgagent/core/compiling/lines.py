"""Tell entries apart that match the same peer, protocol and port: by source port and near end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sgagent.core.compiling.entries import Entry

MANY_LINES = 8
"""Entries for one peer, protocol and port that look further are gone through one by one up to so many."""

Piece = tuple[int, int, tuple["Line", ...]]
"""First and last number, and the lines that are left for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is left to be looked at of an entry."""

    leaf: str
    protocol: int
    """Matters only where there are source ports."""

    source_ports: tuple[tuple[int, int], ...] | None
    """First and last; None is any."""

    local: tuple[int, int] | None

    @classmethod
    def of(cls, entry: Entry) -> Line:
        """Return the line that an entry comes to once peer, protocol and destination port are settled."""
        ports = None if entry.source_ports is None else tuple((p.first, p.last) for p in entry.source_ports)
        return cls(leaf=entry.leaf, protocol=entry.protocol or 0, source_ports=ports, local=entry.local)

    @property
    def is_plain(self) -> bool:
        """Tell whether there is nothing left to be looked at."""
        return self.source_ports is None and self.local is None

    def ranges(self, *, by_port: bool, last: int) -> tuple[tuple[int, int], ...]:
        """Return the source ports, or the near ends, for which the line is."""
        if by_port:
            return ((0, last),) if self.source_ports is None else self.source_ports
        return ((0, last),) if self.local is None else (self.local,)

    def settled(self, *, by_port: bool) -> Line:
        """Return the line once its source port, or its near end, is known to fit."""
        return replace(self, source_ports=None) if by_port else replace(self, local=None)


def cut_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return the lines up to the first plain one: what stands behind it never decides."""
    kept: list[Line] = []
    for line in lines:
        kept.append(line)
        if line.is_plain:
            break
    return tuple(kept)


def split_lines(lines: tuple[Line, ...], *, by_port: bool, last: int) -> tuple[Piece, ...]:
    """Cut the source ports, or the near ends, into pieces with the lines that are left for each.

    Args:
        lines: in order.
        by_port: source ports, or else near ends.
        last: the greatest port or address.
    """
    borders = {0}
    for line in lines:
        for first, final in line.ranges(by_port=by_port, last=last):
            borders |= {first, final + 1}
    places = sorted(border for border in borders if border <= last)
    pieces: list[Piece] = []
    for place, following in zip(places, [*places[1:], last + 1], strict=True):
        left = cut_lines(
            line.settled(by_port=by_port)
            for line in lines
            if any(first <= place <= final for first, final in line.ranges(by_port=by_port, last=last))
        )
        if pieces and pieces[-1][2] == left:
            pieces[-1] = (pieces[-1][0], following - 1, left)
        else:
            pieces.append((place, following - 1, left))
    return tuple(pieces)
