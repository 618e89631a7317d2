"""Sort keys into the folders that they are in, and again only those in which something changed.

Keys are told apart by identity, as in :mod:`sgagent.core.remaking`: whoever follows a store holds the very
same value of a key until that is written again.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.core.remaking import gone_and_come
from sgagent.sources.etcd.layout import MEMBERS, Layout
from sgagent.sources.etcd.messages import KeyValue

Values = Mapping[str, KeyValue]
"""What was read, by key."""

Folder = tuple[KeyValue, ...]
"""What is in a folder, in the order of keys."""

FolderName = tuple[str, ...]
"""The kind of what is in a folder; of members their group, too."""


class Folders:
    """What was read, by folder."""

    def __init__(self, layout: Layout) -> None:
        """Start without anything."""
        self._layout = layout
        self._given: tuple[KeyValue, ...] = ()
        self._by_name: dict[FolderName, Folder] = {}

    def sort(self, values: Values) -> Mapping[FolderName, Folder]:
        """Return all folders that hold something; each is the very same as before if that is so, too."""
        given = tuple(values.values())
        gone, come = gone_and_come(self._given, given)
        self._given = given
        opened: dict[FolderName, dict[str, KeyValue]] = {}
        there = {item.key for item in come}
        for item in gone:
            if item.key not in there:
                del self._open(item, opened)[item.key]
        for item in come:
            folder = self._open(item, opened)
            if folder.get(item.key) != item:  # else it was only read again
                folder[item.key] = item
        for name, folder in opened.items():
            self._close(name, folder)
        return self._by_name

    def _open(self, item: KeyValue, opened: dict[FolderName, dict[str, KeyValue]]) -> dict[str, KeyValue]:
        """Return what is in the folder of a key, to be changed."""
        parts = self._layout.parts(item.key)
        name = parts[:2] if parts[0] == MEMBERS else parts[:1]
        if name not in opened:
            opened[name] = {item.key: item for item in self._by_name.get(name, ())}
        return opened[name]

    def _close(self, name: FolderName, items: Mapping[str, KeyValue]) -> None:
        """Keep what is in a folder from now on."""
        folder = tuple(items[key] for key in sorted(items))
        if not folder:
            del self._by_name[name]
        elif folder != self._by_name.get(name):
            self._by_name[name] = folder
