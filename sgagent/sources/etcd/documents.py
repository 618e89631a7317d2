"""The keys that concern a host, or all, and the native documents that they make.

A host finds its interfaces by MAC and IP address. The selection follows references: from interfaces to their
groups, and from the groups' rules to the objects that they name. Of a group that only a rule names, the host
reads the object and its members, and ignores its rules. A document has the object of one key, a group with
its members.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol

from sgagent.core.binding import HandBinding, HostFacts, is_hidden
from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.memo import Memo, Seam
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.writer import as_json
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
    read_json,
    references_of_rules,
)
from sgagent.sources.etcd.messages import KeyRange, KeyValue

MOST_ANNOUNCED = 64
"""Addresses that a host may announce for one interface."""

_PARTS = 3
"""Parts of a member's key: the kind, its group, and its name."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one group, and warnings about invalid ones."""

    addresses: tuple[str, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...]


class MemberReader:
    """Reader of members, which parses each value of a key once."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start with an empty cache."""
        self._layout = layout
        self._memo = Memo()

    def read(self, folders: Mapping[FolderName, Folder]) -> Mapping[str, Members]:
        """Return the members of each group; the identical object for an unchanged group."""
        self._memo.turn()
        named = {name[1]: folder for name, folder in folders.items() if name[0] == MEMBERS}
        return {group: self._members(group, folder) for group, folder in named.items()}

    def _members(self, group: str, folder: Folder) -> Members:
        memo = self._memo.part(Seam.PARSE_CACHE, group)

        def read() -> Members:
            found = memo.each("addresses", self._addresses, folder)
            pairs = zip(folder, found, strict=True)
            return Members(
                addresses=tuple(chain.from_iterable(filter(None, found))),
                problems=tuple(_not_a_member(item) for item, addresses in pairs if addresses is None),
            )

        return memo.get("members", (folder,), read)

    def _addresses(self, item: KeyValue) -> tuple[str, ...] | None:
        is_named = len(self._layout.parts(item.key)) == _PARTS
        return read_member(item.value, is_announced=item.lease != 0) if is_named else None


def read_member(value: bytes, *, is_announced: bool) -> tuple[str, ...] | None:
    """Return the addresses of a member; None for an invalid value.

    Args:
        value: the value of its key.
        is_announced: whether the key has a lease, so that a host wrote it; a host may announce only a few
            single addresses, and no network.
    """
    try:
        fields = json.loads(value)
        texts = fields["addresses"]
        if fields.keys() != {"addresses"} or not isinstance(texts, list):
            return None
        networks = [ipaddress.ip_network(text) for text in texts if isinstance(text, str)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    is_bounded = not is_announced or (
        len(texts) <= MOST_ANNOUNCED and all(network.num_addresses == 1 for network in networks)
    )
    if len(networks) != len(texts) or not is_bounded or any(map(_is_strange, networks)):
        return None
    return tuple(map(_text, networks))


def _text(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def _is_strange(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Return whether documents would refuse the address: one with a zone, or an IPv4-mapped one."""
    return isinstance(network, ipaddress.IPv6Network) and (
        network.network_address.scope_id is not None or network.subnet_of(_MAPPED)
    )


def _not_a_member(item: KeyValue) -> Problem:
    return Problem(
        severity=Severity.WARNING,
        code="not_a_member",
        origin=Origin(file=f"etcd:{item.key}"),
        message="not the value of a group member; the member is left out",
        value=item.value.decode(errors="replace"),
        remedy='like {"addresses":["10.0.0.11"]}; single addresses where a host announces itself',
    )


@dataclass(frozen=True, slots=True)
class Composed:
    """The native documents of all keys."""

    documents: tuple[DocumentFile, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


class Composer:
    """Composer of documents, with a cache between calls."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start with an empty cache."""
        self._layout = layout
        self._members = MemberReader(layout)
        self._memo = Memo()

    def compose(self, folders: Mapping[FolderName, Folder], is_whole: Callable[[str], bool]) -> Composed:
        """Return the keys as documents; the identical objects for unchanged keys.

        Args:
            folders: the keys.
            is_whole: returns whether a group's document includes its rules.

        Raises:
            DocumentError: the id in a value differs from the name of its key.
        """
        members = self._members.read(folders)
        written: list[_Written] = []
        for kind in sorted(_LIST_OF):
            folder = folders.get((kind,), ())
            ids = [self._layout.relative(item.key).removeprefix(f"{kind}/") for item in folder]
            own = [members.get(name) if kind == GROUPS else None for name in ids]
            whole = [kind != GROUPS or is_whole(name) for name in ids]
            written += self._memo.each(kind, partial(_write, kind, self._layout), folder, own, whole)
        mismatches = [one.mismatch for one in written if one.mismatch is not None]
        if mismatches:
            raise DocumentError(mismatches)
        head = DocumentFile(f"etcd:{self._layout.root}", b'{"version":1}')
        problems = chain.from_iterable(members[group].problems for group in sorted(members))
        return Composed((head, *(one.document for one in written)), tuple(problems))


@dataclass(frozen=True, slots=True)
class _Written:
    """The document of a key, and the error that its name does not match."""

    document: DocumentFile
    mismatch: Problem | None = None


_LIST_OF = {
    GROUPS: ("security_groups", "security_group_id"),
    INTERFACES: ("network_interfaces", "network_interface_id"),
    PREFIX_LISTS: ("prefix_lists", "prefix_list_id"),
    PORT_LISTS: ("port_lists", "port_list_id"),
}
"""The list and the id field of each kind of object in a document."""


def _write(
    kind: str,
    layout: KeyLayout,
    item: KeyValue,
    members: Members | None,
    is_whole: bool,  # noqa: FBT001 - positional, as in the memo's key
) -> _Written:
    """Return the document of a key."""
    name = layout.relative(item.key).removeprefix(f"{kind}/")
    list_name, id_name = _LIST_OF[kind]
    read = read_json(item.value)
    if read is None:  # the parser will report the errors
        return _Written(DocumentFile(f"etcd:{item.key}.json", item.value))
    mismatch = None if read.get(id_name) == name else _mismatch(item, read.get(id_name))
    if kind == GROUPS:
        read = _with_members(read, members, is_whole=is_whole)
    content = as_json({"version": 1, list_name: [read]})
    return _Written(DocumentFile(f"etcd:{item.key}", content), mismatch)


def _with_members(read: dict[str, object], members: Members | None, *, is_whole: bool) -> dict[str, object]:
    """Return a group with its members as ``member_addresses``; without its rules unless ``is_whole``.

    A member in ``member_addresses`` is not an interface. So an announced member can't bind a link.
    """
    own = read.get("member_addresses", [])
    kept = read if is_whole else {name: value for name, value in read.items() if name != "rules"}
    others = members.addresses if members is not None else ()
    return {**kept, "member_addresses": [*own, *others]} if isinstance(own, list) else kept


def _mismatch(item: KeyValue, found: object) -> Problem:
    """Return the error that the id in a value differs from the name of its key."""
    return Problem(
        severity=Severity.ERROR,
        code="key_mismatch",
        origin=Origin(file=f"etcd:{item.key}"),
        message="the id of the object differs from the name of its key",
        value=str(found),
        remedy="publish with 'sgagent publish', or name the key as the object",
    )


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
