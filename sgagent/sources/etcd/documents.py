"""The keys that concern a host, or all, and the native documents that they make.

A host finds its interfaces by MAC and IP address. The selection follows references: from interfaces to their
groups, and from the groups' rules to the objects that they name. Of a group that only a rule names, the host
reads the object and its members, and ignores its rules. A document has the object of one key, a group with
its members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sgagent.core.binding import HandBinding, HostFacts, is_hidden
from sgagent.core.errors import DocumentError, Origin, Problem
from sgagent.core.memo import Memo
from sgagent.documents import DocumentFile, Limits
from sgagent.sources.etcd.key_layout import (
    BY_ADDRESS,
    BY_MAC,
    GROUPS,
    INTERFACES,
    MEMBERS,
    PORT_LISTS,
    PREFIX_LISTS,
    Folder,
    Folders,
    KeyIndex,
    KeyLayout,
    References,
    StoredKey,
    StoredObject,
    Values,
)
from sgagent.sources.etcd.messages import KeyRange, KeyValue


@dataclass(frozen=True, slots=True)
class Composed:
    """The native documents of all keys."""

    documents: tuple[DocumentFile, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


_LISTS = {
    GROUPS: b"security_groups",
    INTERFACES: b"network_interfaces",
    PORT_LISTS: b"port_lists",
    PREFIX_LISTS: b"prefix_lists",
}
"""The list of each kind of object in a document."""


class Composer:
    """Composer of documents; it keeps those whose keys have not changed."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start without documents."""
        self._layout = layout
        self._known: dict[str, _Written] = {}

    def compose(self, folders: Folders, is_whole: Callable[[str], bool]) -> Composed:
        """Return the keys as documents; the identical objects for unchanged keys.

        Args:
            folders: the keys.
            is_whole: returns whether a group's document includes its rules.

        Raises:
            DocumentError: the id in a value differs from the name of its key.
        """
        before, self._known = self._known, {}
        for kind in sorted(_LISTS):
            for stored in folders.get((kind,), ()):
                name = self._layout.relative(stored.item.key).removeprefix(f"{kind}/")
                members = folders.get((MEMBERS, name), ()) if kind == GROUPS else ()
                with_rules = kind == GROUPS and is_whole(name)
                known = before.get(stored.item.key)
                is_same = known is not None and known.stored is stored and known.members is members
                if known is None or not is_same or known.with_rules != with_rules:
                    known = _write(kind, name, stored, members, with_rules=with_rules)
                self._known[stored.item.key] = known
        mismatches = [one.mismatch for one in self._known.values() if one.mismatch is not None]
        if mismatches:
            raise DocumentError(mismatches)
        head = DocumentFile(f"etcd:{self._layout.root}", b'{"version":1}')
        documents = (head, *(one.document for one in self._known.values()))
        groups = [folders[name] for name in sorted(folders) if name[0] == MEMBERS]
        invalid = (one.item for group in groups for one in group if one.content is None)
        return Composed(documents, tuple(map(_not_a_member, invalid)))


@dataclass(frozen=True, slots=True)
class _Written:
    """The document of a key, its origin, and the error that its name does not match."""

    stored: StoredKey
    members: Folder
    with_rules: bool
    document: DocumentFile
    mismatch: Problem | None = None


def _write(kind: str, name: str, stored: StoredKey, members: Folder, *, with_rules: bool) -> _Written:
    """Return the document of a key."""
    item, found = stored.item, stored.content
    if not isinstance(found, StoredObject):  # the parser will report the errors
        return _Written(stored, members, with_rules, DocumentFile(f"etcd:{item.key}.json", item.value))
    addresses = (text for one in members if isinstance(one.content, tuple) for text in one.content)
    text = found.text(addresses, is_whole=with_rules)
    document = DocumentFile(f"etcd:{item.key}", b'{"version":1,"%s":[%s]}' % (_LISTS[kind], text))
    mismatch = None if found.object_id == name else _mismatch(item, found.object_id)
    return _Written(stored, members, with_rules, document, mismatch)


def _not_a_member(item: KeyValue) -> Problem:
    origin, value = Origin(file=f"etcd:{item.key}"), item.value.decode(errors="replace")
    message = "not the value of a group member; the member is left out"
    remedy = 'like {"addresses":["10.0.0.11"]}; single addresses where a host announces itself'
    return Problem.warning(origin, "not_a_member", value, message, remedy)


def _mismatch(item: KeyValue, found: object) -> Problem:
    """Return the error that the id in a value differs from the name of its key."""
    origin, message = Origin(file=f"etcd:{item.key}"), "the id of the object differs from the name of its key"
    remedy = "publish with 'sgagent publish', or name the key as the object"
    return Problem.error(origin, "key_mismatch", str(found), message, remedy)


class Interest(Protocol):
    """The part of a publication that a reader needs."""

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the ranges to read, given the keys read so far; more keys may add ranges."""

    def documents(self, values: Values) -> Composed:
        """Return the read keys as native documents.

        Raises:
            DocumentError: the id in a value differs from the name of its key.
        """


class Everything:
    """Interest in all keys."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start without having read anything."""
        self._layout = layout
        self._index = KeyIndex(layout)
        self._composer = Composer(layout)

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return all ranges except indexes."""
        del values
        return frozenset(map(self._layout.all_of, (*_LISTS, MEMBERS)))

    def documents(self, values: Values) -> Composed:
        """Return all objects, with the announced members."""
        parts = {key: self._layout.parts(key) for key in values}
        of_interfaces = {name for kind, *names in parts.values() if kind == INTERFACES for name in names}
        kept = {
            key: item
            for key, item in values.items()
            if parts[key][0] != MEMBERS or parts[key][-1] not in of_interfaces
        }
        return self._composer.compose(self._index.sort(kept), lambda _: True)


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
        self._bound = frozenset(one.network_interface_id for one in by_hand if one.network_interface_id)
        self._attached = frozenset(
            name for one in by_hand if not one.network_interface_id for name in one.security_group_ids
        )
        self._layout = layout
        self._index = KeyIndex(layout, limits)
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
                *self._keys(INTERFACES, self._bound),
                *self._keys(GROUPS, self._attached),
            }
        )

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the roots, and the ranges that the read keys refer to."""
        folders = self._index.sort(values)
        leading = tuple(folders.get((kind,), ()) for kind in (BY_ADDRESS, BY_MAC, GROUPS, INTERFACES))
        return self._memo.get("wanted", leading, lambda: self._led_to(folders))

    def documents(self, values: Values) -> Composed:
        """Return the documents that concern the host; with pinned keys, only signed ones."""
        folders = self._index.sort(values)
        return self._composer.compose(folders, self._groups(folders).__contains__)

    def _led_to(self, folders: Folders) -> frozenset[KeyRange]:
        """Return the roots, and all ranges reachable from them by references."""
        groups = self._groups(folders)
        references = [_references(stored) for stored in self._named(folders, GROUPS, groups)]
        wanted = set(self.roots())
        wanted.update(self._keys(INTERFACES, self._interfaces(folders)))
        referenced = groups.union(*(one.groups for one in references))
        wanted.update(self._keys(GROUPS, referenced))
        wanted.update(self._layout.all_of(MEMBERS, name) for name in referenced)
        for one in references:
            wanted.update(self._keys(PREFIX_LISTS, one.prefix_lists))
            wanted.update(self._keys(PORT_LISTS, one.port_lists))
        return frozenset(wanted)

    def _keys(self, kind: str, names: Iterable[str]) -> Iterator[KeyRange]:
        return (KeyRange(self._layout.key(kind, name)) for name in names)

    def _interfaces(self, folders: Folders) -> frozenset[str]:
        found = (*folders.get((BY_MAC,), ()), *folders.get((BY_ADDRESS,), ()))
        return self._bound.union(self._layout.parts(stored.item.key)[2] for stored in found)

    def _groups(self, folders: Folders) -> frozenset[str]:
        interfaces = self._named(folders, INTERFACES, self._interfaces(folders))
        return self._attached.union(*(_references(stored).groups for stored in interfaces))

    def _named(self, folders: Folders, kind: str, names: Collection[str]) -> Iterator[StoredKey]:
        """Yield the objects of a kind with these names among the read keys."""
        keys = {self._layout.key(kind, name) for name in names}
        return (stored for stored in folders.get((kind,), ()) if stored.item.key in keys)


def _references(stored: StoredKey) -> References:
    found = stored.content
    return found.references if isinstance(found, StoredObject) else References()
