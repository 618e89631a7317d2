"""Tell which classes a change among the rules for everyone can reach.

A class's table holds what its own entries decide together with those for everyone, at the ports that its own
speak of and nowhere else. So what an entry for everyone says, and where it stands, makes no difference to a
class none of whose entries meets it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sgagent.core.compiling.entries import Entry
from sgagent.core.remaking import common_ends


@dataclass(frozen=True, slots=True)
class ChangeForEveryone:
    """What came and went among the entries for everyone; all others stand in the order in which they did."""

    gone: tuple[int, ...] = ()
    """Where those stood that went, counted among the entries for everyone before; sorted."""

    came: tuple[int, ...] = ()
    """Where those stand that came, among the ones after."""

    entries: tuple[Entry, ...] = ()
    """All of them."""

    def touches(self, entry: Entry) -> bool:
        """Tell whether another entry can match a packet that one of these can, were it from anywhere."""
        return any(_meet(entry, other) for other in self.entries)

    def moves(self, before: Iterable[int], after: Iterable[int]) -> bool:
        """Tell whether entries do not stand where they stood, among those for everyone that stayed.

        Args:
            before: behind how many for everyone each of them stood.
            after: behind how many it stands.
        """
        stood = [place - bisect_left(self.gone, place) for place in before]
        return stood != [place - bisect_left(self.came, place) for place in after]


def change_for_everyone(before: Sequence[Entry], after: Sequence[Entry]) -> ChangeForEveryone | None:
    """Return what changed from some entries for everyone to others; None where that does not tell it all.

    It does not where entries changed places, nor where some that changed look at more than protocol and port:
    how many do so is one of the things that tell a crowd.
    """
    head, tail = common_ends(before, after)
    old, new = range(head, len(before) - tail), range(head, len(after) - tail)
    olds, news = {id(before[place]) for place in old}, {id(after[place]) for place in new}
    gone = tuple(place for place in old if id(before[place]) not in news)
    came = tuple(place for place in new if id(after[place]) not in olds)
    entries = (*(before[place] for place in gone), *(after[place] for place in came))
    stayed = [before[place] for place in old if id(before[place]) in news]
    if not all(entry.is_plain for entry in entries) or stayed != [
        after[place] for place in new if id(after[place]) in olds
    ]:
        return None
    return ChangeForEveryone(gone, came, entries)


def _meet(one: Entry, other: Entry) -> bool:
    """Tell whether protocol and ports of two entries have something in common."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    if one.ports is None or other.ports is None:
        return True
    return any(mine.first <= its.last and its.first <= mine.last for mine in one.ports for its in other.ports)
