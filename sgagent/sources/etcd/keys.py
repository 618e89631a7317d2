"""Layout of keys (``docs/etcd.md``), and an index of keys by folder."""

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
"""The kinds of keys that a publication writes, except its marker."""


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """The keys of one set of definitions."""

    prefix: str
    """As configured: begins with a slash, ends with none."""

    @property
    def root(self) -> str:
        """Return the common prefix of all keys in this version of the layout."""
        return f"{self.prefix}/v1/"

    @property
    def meta(self) -> str:
        """Return the key of the publication's marker."""
        return f"{self.root}meta"

    def key(self, kind: str, *names: str) -> str:
        """Return the key of an object."""
        return self.root + "/".join((kind, *names))

    def all_of(self, kind: str, *names: str) -> KeyRange:
        """Return the range of all keys of a kind, or of those below a name."""
        return KeyRange.below(self.key(kind, *names) + "/")

    def parts(self, key: str) -> tuple[str, ...]:
        """Return the parts of a key: its kind, and the names below it."""
        return tuple(key.removeprefix(self.root).split("/"))

    def relative(self, key: str) -> str:
        """Return a key without the common prefix."""
        return key.removeprefix(self.root)


def published_keys(snapshot: Snapshot, layout: KeyLayout) -> dict[str, bytes]:
    """Return the keys and values of a snapshot, without marker and signature."""
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
    """Yield an interface's own key, its index keys, and its member key in each of its groups."""
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
    """Return the value of a member's key."""
    return as_json({"addresses": list(addresses)})


Values = Mapping[str, KeyValue]
"""All read keys, by name."""

Folder = tuple[KeyValue, ...]
"""The keys of a folder, sorted by name."""

FolderName = tuple[str, ...]
"""The kind of the keys in a folder; for members also their group."""


class Folders:
    """Index of the read keys by folder, updated by diff."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start empty."""
        self._layout = layout
        self._given: tuple[KeyValue, ...] = ()
        self._by_name: dict[FolderName, Folder] = {}

    def sort(self, values: Values) -> Mapping[FolderName, Folder]:
        """Return all non-empty folders; the identical object for an unchanged folder."""
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
            if folder.get(item.key) != item:  # an equal item only has another identity
                folder[item.key] = item
        for name, folder in opened.items():
            self._close(name, folder)
        return self._by_name

    def _open(self, item: KeyValue, opened: dict[FolderName, dict[str, KeyValue]]) -> dict[str, KeyValue]:
        """Return a mutable copy of the folder of a key."""
        parts = self._layout.parts(item.key)
        name = parts[:2] if parts[0] == MEMBERS else parts[:1]
        if name not in opened:
            opened[name] = {item.key: item for item in self._by_name.get(name, ())}
        return opened[name]

    def _close(self, name: FolderName, items: Mapping[str, KeyValue]) -> None:
        """Replace a folder, or remove it if it is empty."""
        folder = tuple(items[key] for key in sorted(items))
        if not folder:
            del self._by_name[name]
        elif folder != self._by_name.get(name):
            self._by_name[name] = folder


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The ids of the objects that the rules of a group refer to."""

    groups: frozenset[str] = frozenset()
    prefix_lists: frozenset[str] = frozenset()
    port_lists: frozenset[str] = frozenset()


def references_of_rules(item: KeyValue, limits: Limits) -> References:
    """Return the references of the rules in a group's key.

    Args:
        item: the key.
        limits: the limits of documents; a key over them has no references.
    """
    rules = [rule for rule in _listed(item, "rules") if isinstance(rule, dict)]
    reading = _reading(item, limits)
    try:
        objects = {field.attempt(parse_object) for field in _texts(rules, "authorization_object", reading)}
    except OverBudgetError:
        return References()
    return References(
        groups=frozenset(one.security_group_id for one in objects if isinstance(one, GroupReference)),
        prefix_lists=frozenset(one.prefix_list_id for one in objects if isinstance(one, PrefixListReference)),
        port_lists=frozenset(
            filter(None, (field.read(parse_id) for field in _texts(rules, "port_list_id", reading)))
        ),
    )


def groups_of_interface(item: KeyValue, limits: Limits) -> frozenset[str]:
    """Return the groups of the interface in a key."""
    reading = _reading(item, limits)
    names = (name for name in _listed(item, "security_group_ids") if isinstance(name, str))
    return frozenset(filter(None, (Field(name, reading).read(parse_id) for name in names)))


def read_json(value: bytes) -> dict[str, object] | None:
    """Return a JSON object; None for any other value, and for characters that documents forbid."""
    try:
        text = value.decode("utf-8-sig")
        refuse_bidirectional(text)
        read = json.loads(text)
    except (ValueError, RecursionError, MalformedError):
        return None
    return read if isinstance(read, dict) else None


def _listed(item: KeyValue, name: str) -> list[object]:
    """Return a list in the object of a key; empty if there is no such list."""
    listed = (read_json(item.value) or {}).get(name)
    return listed if isinstance(listed, list) else []


def _texts(rules: list[dict[str, object]], name: str, reading: Reading) -> Iterator[Field]:
    """Yield each distinct text in a field of the rules."""
    texts = (rule.get(name) for rule in rules)
    return (Field(text, reading) for text in dict.fromkeys(text for text in texts if isinstance(text, str)))


def _reading(item: KeyValue, limits: Limits) -> Reading:
    """Return a reading that drops problems; the parser will report them."""
    return Reading(file=item.key, findings=Findings(0), budget=Budget(limits=limits))
