"""Read a store that is a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from sgagent.sources.etcd.documents import Interest
from sgagent.sources.etcd.messages import KeyRange, KeyValue


def read_all(store: Mapping[str, KeyValue], interest: Interest) -> dict[str, KeyValue]:
    """Return all that is of interest, read as far as what was read leads."""
    values: dict[str, KeyValue] = {}
    known: frozenset[KeyRange] = frozenset()
    while (wanted := interest.wanted(values)) != known:
        known = wanted
        values = {key: item for key, item in store.items() if any(key in one for one in wanted)}
    return values


def covered_by(read: Collection[KeyRange]) -> Callable[[str], bool]:
    """Return what tells of a key whether it is in one of the ranges that were read."""
    return lambda key: any(key in one for one in read)
