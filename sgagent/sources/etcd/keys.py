"""Say which key holds what (``docs/etcd.md``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.memo import gone_and_come
from sgagent.core.model import GroupReference, NetworkInterface, PrefixListReference, Snapshot
from sgagent.documents import Limits
from sgagent.documents.characters import refuse_bidirectional
from sgagent.documents.field import Field, Reading
from sgagent.documents.findings import Budget, Findings, OverBudgetError
from sgagent.documents.tree import MalformedError
from sgagent.documents.values import parse_id, parse_object
from sgagent.documents.writer import (
    as_json,
    write_group,
    write_interface,
    write_port_list,
    write_prefix_list,
)
from sgagent.sources.etcd.messages import KeyRange, KeyValue

GROUPS, INTERFACES = "groups", "interfaces"
PREFIX_LISTS, PORT_LISTS = "prefix-lists", "port-lists"
BY_MAC, BY_ADDRESS, MEMBERS = "by-mac", "by-address", "members"
SIGNATURE = "signature"
FLEET = "fleet"

PUBLISHED = (BY_ADDRESS, BY_MAC, GROUPS, INTERFACES, MEMBERS, PORT_LISTS, PREFIX_LISTS, SIGNATURE)
"""The kinds of keys that a publication writes, beside its marker."""


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """The keys of one set of definitions."""

    prefix: str
    """As configured: begins with a slash, ends with none."""

    @property
    def root(self) -> str:
        """Return what all keys of this version of the layout begin with."""
        return f"{self.prefix}/v1/"

    @property
    def meta(self) -> str:
        """Return the key of the marker that says what is published."""
        return f"{self.root}meta"

    def key(self, kind: str, *names: str) -> str:
        """Return the key of an object."""
        return self.root + "/".join((kind, *names))

    def all_of(self, kind: str, *names: str) -> KeyRange:
        """Return the range of all keys of a kind, or of those below a name of it."""
        return KeyRange.below(self.key(kind, *names) + "/")

    def parts(self, key: str) -> tuple[str, ...]:
        """Return a key taken apart: its kind, and the names below it."""
        return tuple(key.removeprefix(self.root).split("/"))

    def relative(self, key: str) -> str:
        """Return a key without what all begin with."""
        return key.removeprefix(self.root)


def published_keys(snapshot: Snapshot, layout: KeyLayout) -> dict[str, bytes]:
    """Return every key that publishing a snapshot writes, marker and signature apart, with its value."""
    return dict(_keys(snapshot, layout))


def _keys(snapshot: Snapshot, layout: KeyLayout) -> Iterator[tuple[str, bytes]]:
    for group in snapshot.security_groups:
        yield layout.key(GROUPS, group.security_group_id), as_json(write_group(group))
    for prefix_list in snapshot.prefix_lists:
        yield layout.key(PREFIX_LISTS, prefix_list.prefix_list_id), as_json(write_prefix_list(prefix_list))
    for port_list in snapshot.port_lists:
        yield layout.key(PORT_LISTS, port_list.port_list_id), as_json(write_port_list(port_list))
    for interface in snapshot.network_interfaces:
        yield from _keys_of_interface(interface, layout)


def _keys_of_interface(interface: NetworkInterface, layout: KeyLayout) -> Iterator[tuple[str, bytes]]:
    """Go through an interface's own key, those that it is found by, and one in each of its groups."""
    name = interface.network_interface_id
    yield layout.key(INTERFACES, name), as_json(write_interface(interface))
    if interface.mac_address is not None:
        yield layout.key(BY_MAC, interface.mac_address, name), b""
    else:
        for block in interface.addresses:
            if block.first == block.last:
                yield layout.key(BY_ADDRESS, str(block), name), b""
    member = write_member(map(str, interface.addresses))
    for group in interface.security_group_ids:
        yield layout.key(MEMBERS, group, name), member


def write_member(addresses: Iterable[str]) -> bytes:
    """Return the value of a member's key: the addresses that it has."""
    return as_json({"addresses": list(addresses)})


Values = Mapping[str, KeyValue]
"""What was read, by key."""

Folder = tuple[KeyValue, ...]
"""What is in a folder, in the order of keys."""

FolderName = tuple[str, ...]
"""The kind of what is in a folder; of members their group, too."""


class Folders:
    """What was read, by folder."""

    def __init__(self, layout: KeyLayout) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the rules of a group refer to, by their ids."""

    groups: frozenset[str] = frozenset()
    prefix_lists: frozenset[str] = frozenset()
    port_lists: frozenset[str] = frozenset()


def references_of_rules(item: KeyValue, limits: Limits) -> References:
    """Return what the rules of a group's key refer to.

    Args:
        item: the key.
        limits: what is in one may cost no more; beyond, it refers to nothing.
    """
    rules = [rule for rule in _listed(item, "rules") if isinstance(rule, dict)]
    reading = _reading(item, limits)
    try:
        objects = {parse_object(field) for field in _texts(rules, "authorization_object", reading)}
    except OverBudgetError:
        return References()
    return References(
        groups=frozenset(one.security_group_id for one in objects if isinstance(one, GroupReference)),
        prefix_lists=frozenset(one.prefix_list_id for one in objects if isinstance(one, PrefixListReference)),
        port_lists=frozenset(filter(None, map(parse_id, _texts(rules, "port_list_id", reading)))),
    )


def groups_of_interface(item: KeyValue, limits: Limits) -> frozenset[str]:
    """Return the groups that are attached to the interface of a key."""
    reading = _reading(item, limits)
    names = (name for name in _listed(item, "security_group_ids") if isinstance(name, str))
    return frozenset(filter(None, (parse_id(Field(name, reading)) for name in names)))


def read_json(value: bytes) -> dict[str, object] | None:
    """Return the object that JSON holds; None if it is none, or holds characters that documents may not."""
    try:
        text = value.decode("utf-8-sig")
        refuse_bidirectional(text)
        read = json.loads(text)
    except (ValueError, RecursionError, MalformedError):
        return None
    return read if isinstance(read, dict) else None


def _listed(item: KeyValue, name: str) -> list[object]:
    """Return a list that the object of a key holds; none where there is no such list."""
    listed = (read_json(item.value) or {}).get(name)
    return listed if isinstance(listed, list) else []


def _texts(rules: list[dict[str, object]], name: str, reading: Reading) -> Iterator[Field]:
    """Go through the texts that rules have in a field, each once."""
    texts = (rule.get(name) for rule in rules)
    return (Field(text, reading) for text in dict.fromkeys(text for text in texts if isinstance(text, str)))


def _reading(item: KeyValue, limits: Limits) -> Reading:
    """Return a reading in which problems are told to nobody."""
    return Reading(file=item.key, findings=Findings(0), budget=Budget(limits=limits))
