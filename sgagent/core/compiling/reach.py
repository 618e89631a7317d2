"""Tell which classes a change of entries can reach.

A class's table holds what its own entries decide together with those for everyone, at the ports that its own
speak of and nowhere else. So what an entry for everyone says, and where it stands, makes no difference to a
class none of whose entries meets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgagent.core.compiling.entries import Entry
from sgagent.core.remaking import changed_places, common_ends


@dataclass(frozen=True, slots=True)
class Reach:
    """What a change of entries can reach."""

    peers: frozenset[str]
    """In whose classes another entry may decide than before."""

    is_for_everyone: bool
    """Whether some that changed are for everyone."""


MOST_FOR_EVERYONE = 32
"""Entries for everyone up to which it is worth while to find out what they meet: each is held against all."""


def reach(before: Sequence[Entry], after: Sequence[Entry]) -> Reach | None:
    """Return what a change from some entries to others can reach; None where that may be anything.

    So it may where entries for everyone changed that look at more than protocol and port: how many do so is
    one of the things that tell a crowd.
    """
    changed = _changed(before, after)
    everyone = [entry for entry in changed or () if entry.is_for_everyone]
    if changed is None or len(everyone) > MOST_FOR_EVERYONE or not all(entry.is_plain for entry in everyone):
        return None
    own = {entry.peer for entry in changed if not entry.is_for_everyone}
    met = (entry for other in everyone for entry in after if _meet(entry, other))
    own.update(entry.peer for entry in met if not entry.is_for_everyone)
    return Reach(frozenset(own), bool(everyone))


def _changed(before: Sequence[Entry], after: Sequence[Entry]) -> tuple[Entry, ...] | None:
    """Return the entries that went and came; None if some others do not stand in the order in which they did.

    What stands in the place of one that decides like it, for other addresses, has not come.
    """
    if len(before) == len(after):
        pairs = [(before[place], after[place]) for place in changed_places(before, after)]
        if {id(old) for old, _ in pairs}.isdisjoint(id(new) for _, new in pairs):
            return tuple(entry for pair in pairs if not _decide_alike(*pair) for entry in pair)
    head, tail = common_ends(before, after)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    olds, news = set(map(id, old)), set(map(id, new))
    if [id(entry) for entry in old if id(entry) in news] != [id(entry) for entry in new if id(entry) in olds]:
        return None
    gone = (entry for entry in old if id(entry) not in news)
    return (*gone, *(entry for entry in new if id(entry) not in olds))


def _decide_alike(one: Entry, other: Entry) -> bool:
    return one.is_for_everyone == other.is_for_everyone and one.decides_like(other)


def _meet(one: Entry, other: Entry) -> bool:
    """Tell whether protocol and ports of two entries have something in common."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    if one.ports is None or other.ports is None:
        return True
    return any(mine.first <= its.last and its.first <= mine.last for mine in one.ports for its in other.ports)
