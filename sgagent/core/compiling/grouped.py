"""Sort the entries of a direction by whom they speak of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sgagent.core.addresses import AddressRanges
from sgagent.core.compiling.entries import Entry
from sgagent.core.remaking import Revised, changed_places


@dataclass(frozen=True, slots=True)
class Grouped:
    """Entries by their places in the list, the first that decides first."""

    entries: tuple[Entry, ...]
    by_peer: Mapping[str, Sequence[int]]
    """Those of each peer that is not everyone."""

    for_everyone: tuple[int, ...]
    peers: tuple[str, ...]
    """Sorted."""

    addresses: Revised[AddressRanges]
    """Of each of these."""

    def is_like(self, other: Grouped) -> bool:
        """Tell whether the same stand at the same places, but for the addresses of some."""
        return self.by_peer is other.by_peer

    def addresses_with(self, changed: Iterable[str], entries: tuple[Entry, ...]) -> Revised[AddressRanges]:
        """Return the addresses of all peers, for entries that are like these but for some that changed."""
        return self.addresses.but(
            {bisect_left(self.peers, peer): entries[self.by_peer[peer][0]].addresses for peer in changed}
        )

    def own(self, peers: tuple[str, ...]) -> list[int]:
        """Return the entries of some peers, in order."""
        return sorted(index for peer in peers for index in self.by_peer[peer])


def group(entries: tuple[Entry, ...], before: Grouped | None) -> Grouped:
    """Return the entries by whom they speak of.

    Args:
        entries: all of them, in order.
        before: what this function returned for others.
    """
    if before is not None and len(before.entries) == len(entries):
        places = changed_places(before.entries, entries)
        if all(_is_alike(before.entries[place], entries[place]) for place in places):
            changed = {entries[place].peer for place in places if not entries[place].is_for_everyone}
            return replace(before, entries=entries, addresses=before.addresses_with(changed, entries))
    by_peer: dict[str, list[int]] = {}
    for_everyone: list[int] = []
    for index, entry in enumerate(entries):
        if entry.is_for_everyone:
            for_everyone.append(index)
        else:
            by_peer.setdefault(entry.peer, []).append(index)
    peers = tuple(sorted(by_peer))
    addresses = Revised(entries[by_peer[peer][0]].addresses for peer in peers)
    return Grouped(entries, by_peer, tuple(for_everyone), peers, addresses)


def _is_alike(one: Entry, other: Entry) -> bool:
    """Tell whether two speak of the same peer, whatever its addresses are."""
    return one.peer == other.peer and one.is_for_everyone == other.is_for_everyone
