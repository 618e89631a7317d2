"""Tell where telling entries apart by look-ups would take more room than they are worth.

Ranges of source ports, or near ends, that overlap in many ways make a cell for each combination: tables then
grow with the cube of the number of entries. Such a class is compiled as a list in order of precedence
instead, as no policy that people write comes near.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sgagent.core.compiling.entries import Entry
from sgagent.core.compiling.lines import MANY_LINES
from sgagent.core.compiling.tables import PORTED
from sgagent.core.model import LAST_PORT

LARGEST = 20_000
"""Lines that the cells of one class may have, by estimate."""


def is_crowd(entries: Sequence[Entry], own: Iterable[int], everyone: Iterable[int]) -> bool:
    """Tell whether a class's table would be too large.

    Args:
        entries: all entries, in order.
        own: indices of the entries that are for the class and not for everyone.
        everyone: indices of the entries that are for everyone.
    """
    own, constrained = tuple(own), [i for i in (*own, *everyone) if not entries[i].is_plain]
    if len(constrained) <= MANY_LINES:
        return False
    return sum(_estimate(entries, own, constrained, protocol) for protocol in PORTED) > LARGEST


def _estimate(entries: Sequence[Entry], own: Iterable[int], constrained: Iterable[int], protocol: int) -> int:
    """Return about how many lines the cells of a protocol have at the ports that the class speaks of."""
    borders: dict[int, list[int]] = {}
    for place, indices in enumerate((own, constrained)):
        for index in indices:
            for first, last in _ports(entries[index], protocol):
                borders.setdefault(first, [0, 0])[place] += 1
                borders.setdefault(last + 1, [0, 0])[place] -= 1
    spoken_of = depth = lines = 0
    for port in sorted(borders):
        spoken_of += borders[port][0]
        depth += borders[port][1]
        if spoken_of:
            lines += depth * depth if depth > MANY_LINES else depth
    return lines


def _ports(entry: Entry, protocol: int) -> Iterable[tuple[int, int]]:
    """Return the destination ports of the protocol that the entry speaks of."""
    if entry.protocol not in (None, protocol):
        return ()
    if entry.ports is None:
        return ((0, LAST_PORT),)
    return tuple((ports.first, ports.last) for ports in entry.ports)
