"""Sort the entries of a direction by whom they speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sgagent.core.compiling.entries import Entry
from sgagent.core.remaking import changed_places


@dataclass(frozen=True, slots=True)
class Grouped:
    """Entries by their places in the list, the first that decides first."""

    entries: tuple[Entry, ...]
    by_peer: Mapping[str, Sequence[int]]
    """Those of each peer that is not everyone."""

    for_everyone: tuple[int, ...]
    peers: tuple[str, ...]
    """Sorted."""

    def is_like(self, other: Grouped) -> bool:
        """Tell whether the same stand at the same places, but for the addresses of some."""
        return self.by_peer is other.by_peer

    def own(self, peers: tuple[str, ...]) -> list[int]:
        """Return the entries of some peers, in order."""
        return sorted(index for peer in peers for index in self.by_peer[peer])


def group(entries: tuple[Entry, ...], before: Grouped | None) -> Grouped:
    """Return the entries by whom they speak of.

    Args:
        entries: all of them, in order.
        before: what this function returned for others.
    """
    if before is not None and _are_alike(before.entries, entries):
        return replace(before, entries=entries)
    by_peer: dict[str, list[int]] = {}
    for_everyone: list[int] = []
    for index, entry in enumerate(entries):
        if entry.is_for_everyone:
            for_everyone.append(index)
        else:
            by_peer.setdefault(entry.peer, []).append(index)
    return Grouped(entries, by_peer, tuple(for_everyone), tuple(sorted(by_peer)))


def _are_alike(before: tuple[Entry, ...], after: tuple[Entry, ...]) -> bool:
    """Tell whether the same stand at the same places, but for the addresses of some."""
    return len(before) == len(after) and all(
        before[place].peer == after[place].peer
        and before[place].is_for_everyone == after[place].is_for_everyone
        for place in changed_places(before, after)
    )
