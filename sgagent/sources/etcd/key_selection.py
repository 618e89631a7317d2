"""Selection of the keys to read: those that concern one host, or all.

A host finds its interfaces by MAC and IP address. The selection follows references: from interfaces to their
groups, and from the groups' rules to the objects that they name. Of a group that only a rule names, the host
reads the object and its members, and ignores its rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol

from sgagent.core.binding import HandBinding, HostFacts, is_hidden
from sgagent.core.memo import Memo
from sgagent.documents import Limits
from sgagent.sources.etcd.documents import Composed, Composer
from sgagent.sources.etcd.keys import (
    BY_ADDRESS,
    BY_MAC,
    GROUPS,
    INTERFACES,
    MEMBERS,
    PORT_LISTS,
    PREFIX_LISTS,
    Folder,
    FolderName,
    Folders,
    KeyLayout,
    References,
    Values,
    groups_of_interface,
    references_of_rules,
)
from sgagent.sources.etcd.messages import KeyRange, KeyValue


class Interest(Protocol):
    """The part of a publication that a reader needs."""

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the ranges to read, given the keys read so far; more keys may add ranges."""
        ...

    def documents(self, values: Values) -> Composed:
        """Return the read keys as native documents.

        Raises:
            DocumentError: the id in a value differs from the name of its key.
        """
        ...


class Everything:
    """Interest in all keys."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start without having read anything."""
        self._layout = layout
        self._folders = Folders(layout)
        self._composer = Composer(layout)

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return all ranges except indexes."""
        del values
        kinds = (GROUPS, INTERFACES, MEMBERS, PORT_LISTS, PREFIX_LISTS)
        return frozenset(self._layout.all_of(kind) for kind in kinds)

    def documents(self, values: Values) -> Composed:
        """Return all objects, with the announced members."""
        parts = {key: self._layout.parts(key) for key in values}
        of_interfaces = {name for kind, *names in parts.values() if kind == INTERFACES for name in names}
        kept = {
            key: item
            for key, item in values.items()
            if parts[key][0] != MEMBERS or parts[key][-1] not in of_interfaces
        }
        return self._composer.compose(self._folders.sort(kept), lambda _: True)


class HostInterest:
    """Interest in the keys that concern one host."""

    def __init__(
        self, layout: KeyLayout, facts: HostFacts, by_hand: tuple[HandBinding, ...], limits: Limits
    ) -> None:
        """Start without having read anything.

        Args:
            layout: the keys.
            facts: the links, by which interfaces are found.
            by_hand: bindings that lead to interfaces and groups, too.
            limits: what one key may cost.
        """
        self.facts = facts
        self.by_hand = by_hand
        self._layout = layout
        self._limits = limits
        self._folders = Folders(layout)
        self._verified_folders = Folders(layout)
        self._composer = Composer(layout)
        self._memo = Memo()

    def roots(self) -> frozenset[KeyRange]:
        """Return the roots of the selection; ports of bridges and the like have none (§9.4)."""
        links = [link for link in self.facts.links if not link.is_loopback and not is_hidden(link)]
        macs = {link.mac_address for link in links if link.mac_address}
        addresses = {str(block) for link in links for block in link.addresses}
        return frozenset(
            {
                *(self._layout.all_of(BY_MAC, mac) for mac in macs),
                *(self._layout.all_of(BY_ADDRESS, address) for address in addresses),
                *(KeyRange(self._layout.key(INTERFACES, name)) for name in self._bound_by_hand()),
                *(KeyRange(self._layout.key(GROUPS, name)) for name in self._groups_by_hand()),
            }
        )

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the roots, and the ranges that the read keys refer to."""
        folders = self._folders.sort(values)
        leading = tuple(folders.get((kind,), ()) for kind in (BY_ADDRESS, BY_MAC, GROUPS, INTERFACES))
        return self._memo.get("wanted", leading, partial(self._led_to, folders))

    def documents(self, values: Values) -> Composed:
        """Return the documents that concern the host; with pinned keys, only signed ones."""
        folders = self._verified_folders.sort(values)
        return self._composer.compose(folders, self._groups(folders).__contains__)

    def interfaces(self, values: Values) -> frozenset[str]:
        """Return the ids of this host's network interfaces among the read keys."""
        return self._interfaces(self._folders.sort(values))

    def groups(self, values: Values) -> frozenset[str]:
        """Return the ids of the groups of this host's interfaces among the read keys."""
        return self._groups(self._folders.sort(values))

    def _led_to(self, folders: Mapping[FolderName, Folder]) -> frozenset[KeyRange]:
        """Return the roots, and all ranges reachable from them by references."""
        groups = self._groups(folders)
        references = self._references_of(folders, groups)
        wanted = set(self.roots())
        wanted.update(self._keys(INTERFACES, self._interfaces(folders)))
        for name in groups.union(*(one.groups for one in references)):
            wanted.add(KeyRange(self._layout.key(GROUPS, name)))
            wanted.add(self._layout.all_of(MEMBERS, name))
        for one in references:
            wanted.update(self._keys(PREFIX_LISTS, one.prefix_lists))
            wanted.update(self._keys(PORT_LISTS, one.port_lists))
        return frozenset(wanted)

    def _keys(self, kind: str, names: Iterable[str]) -> Iterator[KeyRange]:
        return (KeyRange(self._layout.key(kind, name)) for name in names)

    def _interfaces(self, folders: Mapping[FolderName, Folder]) -> frozenset[str]:
        found = (*folders.get((BY_MAC,), ()), *folders.get((BY_ADDRESS,), ()))
        return self._bound_by_hand().union(self._layout.parts(item.key)[2] for item in found)

    def _groups(self, folders: Mapping[FolderName, Folder]) -> frozenset[str]:
        interfaces = self._named(folders, INTERFACES, self._interfaces(folders))
        return self._groups_by_hand().union(*(groups_of_interface(item, self._limits) for item in interfaces))

    def _references_of(
        self, folders: Mapping[FolderName, Folder], groups: Collection[str]
    ) -> tuple[References, ...]:
        """Return the references of groups' rules, memoized by key."""
        read = partial(references_of_rules, limits=self._limits)
        return self._memo.each("references", read, tuple(self._named(folders, GROUPS, groups)))

    def _named(
        self, folders: Mapping[FolderName, Folder], kind: str, names: Collection[str]
    ) -> Iterator[KeyValue]:
        """Yield the objects of a kind with these names among the read keys."""
        keys = {self._layout.key(kind, name) for name in names}
        return (item for item in folders.get((kind,), ()) if item.key in keys)

    def _bound_by_hand(self) -> frozenset[str]:
        return frozenset(
            binding.network_interface_id for binding in self.by_hand if binding.network_interface_id
        )

    def _groups_by_hand(self) -> frozenset[str]:
        return frozenset(
            name
            for binding in self.by_hand
            if not binding.network_interface_id
            for name in binding.security_group_ids
        )
