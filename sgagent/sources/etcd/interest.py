"""Say which keys concern a host, and put together what they hold.

A host finds its network interfaces by MAC and address, these lead to groups, and the rules of the groups
to what they refer to. Nothing else is read: of a group that rules only refer to, its members and what it says
of itself, not its rules. Somebody who looks at everything reads everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sgagent.core.binding import is_hidden
from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.host import HandBinding, HostFacts
from sgagent.core.model import (
    GroupReference,
    PortListReference,
    PrefixListReference,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writing import as_json
from sgagent.sources.etcd.layout import (
    BY_ADDRESS,
    BY_MAC,
    GROUPS,
    INTERFACES,
    MEMBERS,
    PORT_LISTS,
    PREFIX_LISTS,
    Layout,
)
from sgagent.sources.etcd.members import MemberReader, Members
from sgagent.sources.etcd.messages import KeyRange, KeyValue

Values = Mapping[str, KeyValue]
"""What was read, by key."""


@dataclass(frozen=True, slots=True)
class Composed:
    """What was read, as native documents."""

    documents: tuple[DocumentFile, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


class Interest(Protocol):
    """What somebody wants to know of all that is published."""

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return what has to be read, judging by what was read so far; more only if that holds more."""
        ...

    def documents(self, values: Values) -> Composed:
        """Return what was read as native documents.

        Raises:
            DocumentError: a key holds another object than its name says.
        """
        ...


@dataclass(frozen=True, slots=True)
class Everything:
    """Want to know all."""

    layout: Layout
    _members: MemberReader = field(init=False)

    def __post_init__(self) -> None:
        """Start without having read a member."""
        object.__setattr__(self, "_members", MemberReader(self.layout))

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return everything that is no index."""
        del values
        kinds = (GROUPS, INTERFACES, MEMBERS, PORT_LISTS, PREFIX_LISTS)
        return frozenset(self.layout.all_of(kind) for kind in kinds)

    def documents(self, values: Values) -> Composed:
        """Return all objects; as members, those that hosts announced."""
        of_interfaces = {names[0] for kind, *names in map(self.layout.parts, values) if kind == INTERFACES}
        others = (key for key in sorted(values) if self.layout.parts(key)[-1] not in of_interfaces)
        members = self._members.read(values[key] for key in others)
        return _composed(values, self.layout, members, is_whole=lambda _: True)


@dataclass(frozen=True, slots=True)
class HostInterest:
    """Want to know what concerns one host."""

    layout: Layout
    facts: HostFacts
    by_hand: tuple[HandBinding, ...]
    limits: Limits
    _read: dict[str, tuple[int, Snapshot]] = field(default_factory=dict)
    """By key: the revision at which it was written, and what was parsed then."""

    _members: MemberReader = field(init=False)

    def __post_init__(self) -> None:
        """Start without having read a member."""
        object.__setattr__(self, "_members", MemberReader(self.layout))

    def roots(self) -> frozenset[KeyRange]:
        """Return what leads to everything else; to ports of bridges and the like nothing does (§9.4)."""
        links = [link for link in self.facts.links if not link.is_loopback and not is_hidden(link)]
        macs = {link.mac_address for link in links if link.mac_address}
        addresses = {str(block) for link in links for block in link.addresses}
        return frozenset(
            {
                *(self.layout.all_of(BY_MAC, mac) for mac in macs),
                *(self.layout.all_of(BY_ADDRESS, address) for address in addresses),
                *(KeyRange(self.layout.key(INTERFACES, name)) for name in self._bound_by_hand()),
                *(KeyRange(self.layout.key(GROUPS, name)) for name in self._groups_by_hand()),
            }
        )

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the roots, and all that what was read so far leads to."""
        wanted = set(self.roots())
        wanted.update(KeyRange(self.layout.key(INTERFACES, name)) for name in self.interfaces(values))
        groups = self.groups(values)
        for name in groups | self._referenced_groups(values, groups):
            wanted.add(KeyRange(self.layout.key(GROUPS, name)))
            wanted.add(self.layout.all_of(MEMBERS, name))
        for rule in self._rules(values, groups):
            if isinstance(rule.authorization_object, PrefixListReference):
                name = rule.authorization_object.prefix_list_id
                wanted.add(KeyRange(self.layout.key(PREFIX_LISTS, name)))
            if isinstance(rule.ports, PortListReference):
                wanted.add(KeyRange(self.layout.key(PORT_LISTS, rule.ports.port_list_id)))
        return frozenset(wanted)

    def documents(self, values: Values) -> Composed:
        """Return what concerns the host."""
        members = self._members.read(values[key] for key in sorted(values))
        return _composed(values, self.layout, members, is_whole=self.groups(values).__contains__)

    def interfaces(self, values: Values) -> frozenset[str]:
        """Return the ids of the network interfaces that are this host's, as far as was read."""
        found = {parts[2] for parts in map(self.layout.parts, values) if parts[0] in (BY_MAC, BY_ADDRESS)}
        return frozenset(found | self._bound_by_hand())

    def groups(self, values: Values) -> frozenset[str]:
        """Return the ids of the groups that are attached to this host's interfaces, as far as was read."""
        found = set(self._groups_by_hand())
        for name in self.interfaces(values):
            for interface in self._parsed(values, INTERFACES, name).network_interfaces:
                found.update(interface.security_group_ids)
        return frozenset(found)

    def _referenced_groups(self, values: Values, groups: Iterable[str]) -> frozenset[str]:
        objects = (rule.authorization_object for rule in self._rules(values, groups))
        return frozenset(one.security_group_id for one in objects if isinstance(one, GroupReference))

    def _rules(self, values: Values, groups: Iterable[str]) -> Iterator[SecurityGroupRule]:
        for name in groups:
            for group in self._parsed(values, GROUPS, name).security_groups:
                yield from group.rules

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

    def _parsed(self, values: Values, kind: str, name: str) -> Snapshot:
        """Return what an object's key holds; nothing if it is not there, or has errors, which show later."""
        item = values.get(self.layout.key(kind, name))
        if item is None:
            return _NOTHING
        revision, snapshot = self._read.get(item.key, (0, _NOTHING))
        if revision != item.mod_revision:
            snapshot = self._parse(item, kind)
            self._read[item.key] = (item.mod_revision, snapshot)
        return snapshot

    def _parse(self, item: KeyValue, kind: str) -> Snapshot:
        try:
            return parse_documents(
                [_document(item, kind, _read_json(item.value) or {})], self.limits, "one key"
            )[0]
        except DocumentError:
            return _NOTHING


_NOTHING = Snapshot(version="nothing")

_LIST_OF = {
    GROUPS: ("security_groups", "security_group_id"),
    INTERFACES: ("network_interfaces", "network_interface_id"),
    PREFIX_LISTS: ("prefix_lists", "prefix_list_id"),
    PORT_LISTS: ("port_lists", "port_list_id"),
}
"""Where in a document objects of a kind stand, and the field with their id."""


def _composed(
    values: Values, layout: Layout, members: Members, *, is_whole: Callable[[str], bool]
) -> Composed:
    """Return what was read as documents.

    Args:
        values: what was read.
        layout: the keys.
        members: of the groups.
        is_whole: tells of a group whether its rules count.
    """
    documents = [DocumentFile(f"etcd:{layout.root}", b'{"version":1}')]
    mismatches = []
    for key in sorted(values):
        kind, *names = layout.parts(key)
        if kind not in _LIST_OF:
            continue
        item = values[key]
        read = _read_json(item.value)
        if read is None:
            documents.append(DocumentFile(f"etcd:{key}.json", item.value))  # whose errors are told there
            continue
        if read.get(_LIST_OF[kind][1]) != "/".join(names):
            mismatches.append(_mismatch(item, read.get(_LIST_OF[kind][1])))
        if kind == GROUPS:
            read = _with_members(read, members.by_group.get(names[0], []), is_whole=is_whole(names[0]))
        documents.append(_document(item, kind, read))
    if mismatches:
        raise DocumentError(mismatches)
    return Composed(tuple(documents), tuple(members.problems))


def _document(item: KeyValue, kind: str, read: dict[str, object]) -> DocumentFile:
    """Return an object as a document of its own."""
    return DocumentFile(f"etcd:{item.key}", as_json({"version": 1, _LIST_OF[kind][0]: [read]}))


def _with_members(read: dict[str, object], addresses: list[str], *, is_whole: bool) -> dict[str, object]:
    """Return a group with its members as its own addresses, and without rules that do not count.

    As addresses they can be bound to no link, whoever announced them.
    """
    own = read.get("member_addresses", [])
    kept = read if is_whole else {name: value for name, value in read.items() if name != "rules"}
    return {**kept, "member_addresses": [*own, *addresses]} if isinstance(own, list) else kept


def _read_json(value: bytes) -> dict[str, object] | None:
    """Return the object that JSON holds; None if it is none."""
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _mismatch(item: KeyValue, found: object) -> Problem:
    """Return the error of a key that holds another object than its name says."""
    return Problem(
        severity=Severity.ERROR,
        code="key_mismatch",
        origin=Origin(file=f"etcd:{item.key}"),
        message="the key holds another object than its name says",
        value=str(found),
        remedy="publish with 'sgagent publish', or name the key as the object",
    )
