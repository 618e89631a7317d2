"""Layout of keys (``docs/etcd.md``), and an index of the read keys, each decoded once."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from sgagent.core.memo import gone_and_come
from sgagent.core.model import GroupReference, NetworkInterface, PrefixListReference, Snapshot
from sgagent.documents import Limits
from sgagent.documents.field import Field, Reading
from sgagent.documents.problems import Budget, Findings, OverBudgetError
from sgagent.documents.scalars import refuse_bidirectional
from sgagent.documents.tree import MalformedError
from sgagent.documents.values import parse_id, parse_objects
from sgagent.documents.writer import as_json, write_group, write_interface, write_port_list, write_prefix_list
from sgagent.json_model import UNREADABLE, from_json
from sgagent.sources.etcd.messages import KeyRange, KeyValue

GROUPS, INTERFACES = "groups", "interfaces"
PREFIX_LISTS, PORT_LISTS = "prefix-lists", "port-lists"
BY_MAC, BY_ADDRESS, MEMBERS = "by-mac", "by-address", "members"
SIGNATURE = "signature"
FLEET = "fleet"

PUBLISHED = (BY_ADDRESS, BY_MAC, GROUPS, INTERFACES, MEMBERS, PORT_LISTS, PREFIX_LISTS, SIGNATURE)
"""The kinds of keys that a publication writes, except its marker."""

ID_FIELDS = {
    GROUPS: "security_group_id",
    INTERFACES: "network_interface_id",
    PORT_LISTS: "port_list_id",
    PREFIX_LISTS: "prefix_list_id",
}
"""The field of each kind of object that has its id."""

MOST_ANNOUNCED = 64
"""Addresses that a host may announce for one interface."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


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
    keys: dict[str, bytes] = {}
    for group in snapshot.security_groups:
        keys[layout.key(GROUPS, group.security_group_id)] = as_json(write_group(group))
    for prefix_list in snapshot.prefix_lists:
        keys[layout.key(PREFIX_LISTS, prefix_list.prefix_list_id)] = as_json(write_prefix_list(prefix_list))
    for port_list in snapshot.port_lists:
        keys[layout.key(PORT_LISTS, port_list.port_list_id)] = as_json(write_port_list(port_list))
    for interface in snapshot.network_interfaces:
        keys.update(_keys_of_interface(interface, layout))
    return keys


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


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The ids of the objects that an object refers to: a group in its rules, an interface as a member."""

    groups: frozenset[str] = frozenset()
    prefix_lists: frozenset[str] = frozenset()
    port_lists: frozenset[str] = frozenset()


_NO_REFERENCES = References()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """The JSON object in a key; of a group, the parts that its document may lack or extend are apart."""

    object_id: object
    rest: bytes
    member_addresses: bytes | None = None
    """Of a group, without brackets; None if the object can't be extended by members."""

    rules: bytes = b""
    references: References = _NO_REFERENCES

    def text(self, addresses: Iterable[str], *, is_whole: bool) -> bytes:
        """Return the object with more member addresses, and with its rules if ``is_whole``.

        A member in ``member_addresses`` is not an interface. So an announced member can't bind a link.
        """
        parts = [self.rest[1:-1]]
        if self.member_addresses is not None:
            added = as_json(list(addresses))[1:-1]
            listed = b",".join(filter(None, (self.member_addresses, added)))
            parts.append(b'"member_addresses":[' + listed + b"]")
        if is_whole and self.rules:
            parts.append(b'"rules":' + self.rules)
        return b"{" + b",".join(filter(None, parts)) + b"}"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A read key with its parsed value."""

    item: KeyValue
    content: StoredObject | tuple[str, ...] | None = None
    """An object, or the addresses of a member; None for an invalid value, and for a key of an index."""


Folder = tuple[StoredKey, ...]
"""The keys of a folder, sorted by name."""

FolderName = tuple[str, ...]
"""The kind of the keys in a folder; for members also their group."""

Folders = Mapping[FolderName, Folder]
"""The folders that are not empty."""


@dataclass(slots=True)
class KeyIndex:
    """Index of the read keys by folder, updated by diff; each value is decoded once."""

    layout: KeyLayout
    limits: Limits | None = None
    """The limits of documents; a key over them has no references. None reads no references."""

    _given: tuple[KeyValue, ...] = ()
    _by_name: dict[FolderName, Folder] = field(default_factory=dict)

    def sort(self, values: Values) -> Folders:
        """Return all non-empty folders; the identical object for an unchanged folder."""
        given = tuple(values.values())
        gone, come = gone_and_come(self._given, given)
        self._given = given
        opened: dict[FolderName, dict[str, StoredKey]] = {}
        for key in {item.key for item in gone} - {item.key for item in come}:
            del self._open(key, opened)[key]
        for item in come:
            folder = self._open(item.key, opened)
            if item.key not in folder or folder[item.key].item != item:  # else only its identity is another
                folder[item.key] = self._read(item)
        for name, folder in opened.items():
            self._close(name, folder)
        return self._by_name

    def _open(self, key: str, opened: dict[FolderName, dict[str, StoredKey]]) -> dict[str, StoredKey]:
        """Return a mutable copy of the folder of a key."""
        parts = self.layout.parts(key)
        name = parts[:2] if parts[0] == MEMBERS else parts[:1]
        if name not in opened:
            opened[name] = {stored.item.key: stored for stored in self._by_name.get(name, ())}
        return opened[name]

    def _close(self, name: FolderName, items: Mapping[str, StoredKey]) -> None:
        """Replace a folder, or remove it if it is empty."""
        folder = tuple(items[key] for key in sorted(items))
        if not folder:
            del self._by_name[name]
        elif folder != self._by_name.get(name):
            self._by_name[name] = folder

    def _read(self, item: KeyValue) -> StoredKey:
        kind, *names = self.layout.parts(item.key)
        content: StoredObject | tuple[str, ...] | None = None
        if kind in ID_FIELDS:
            content = read_object(item, kind, self.limits)
        elif kind == MEMBERS and len(names) == 2:
            content = read_member(item.value, is_announced=item.lease != 0)
        return StoredKey(item, content)


def read_object(item: KeyValue, kind: str, limits: Limits | None) -> StoredObject | None:
    """Return the object in a key; None for any other value, whose errors the parser will report."""
    read = read_json(item.value)
    if read is None:
        return None
    references = _NO_REFERENCES if limits is None else _references(item.key, read, limits)
    object_id = read.get(ID_FIELDS[kind])
    own = read.get("member_addresses", [])
    is_extensible = kind == GROUPS and isinstance(own, list)
    try:
        rules = as_json(read.pop("rules")) if kind == GROUPS and "rules" in read else b""
        rest = as_json({k: v for k, v in read.items() if k != "member_addresses" or not is_extensible})
        addresses = as_json(own)[1:-1] if is_extensible else None
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return StoredObject(
        object_id=object_id, rest=rest, member_addresses=addresses, rules=rules, references=references
    )


def _references(file: str, read: dict[str, object], limits: Limits) -> References:
    """Return the references of a group's rules, or of an interface's memberships."""
    reading = Reading(file=file, findings=Findings(0), budget=Budget(limits=limits))
    rules = [rule for rule in _listed(read, "rules") if isinstance(rule, dict)]
    attached = (name for name in _listed(read, "security_group_ids") if isinstance(name, str))
    try:
        texts = _texts(rules, "authorization_object", reading)
        objects = {one for text in texts for _, one in text.attempt(parse_objects) or ()}
        groups = {Field(name, reading).read(parse_id) for name in attached}
        port_lists = {field.read(parse_id) for field in _texts(rules, "port_list_id", reading)}
    except OverBudgetError:
        return _NO_REFERENCES
    groups |= {one.security_group_id for one in objects if isinstance(one, GroupReference)}
    return References(
        groups=frozenset(filter(None, groups)),
        prefix_lists=frozenset(one.prefix_list_id for one in objects if isinstance(one, PrefixListReference)),
        port_lists=frozenset(filter(None, port_lists)),
    )


def _listed(read: dict[str, object], name: str) -> list[object]:
    """Return a list in an object; empty if there is no such list."""
    listed = read.get(name)
    return listed if isinstance(listed, list) else []


def _texts(rules: list[dict[str, object]], name: str, reading: Reading) -> Iterator[Field]:
    """Yield each distinct text in a field of the rules; of objects, also those in lists."""
    values = (rule.get(name) for rule in rules)
    is_listed = name == "authorization_object"
    texts = (text for one in values for text in (one if is_listed and isinstance(one, list) else (one,)))
    return (Field(text, reading) for text in dict.fromkeys(text for text in texts if isinstance(text, str)))


def read_json(value: bytes) -> dict[str, object] | None:
    """Return a JSON object; None for any other value, and for characters that documents forbid."""
    try:
        text = value.decode("utf-8-sig")
        refuse_bidirectional(text)
        read = json.loads(text)
    except (ValueError, RecursionError, MalformedError):
        return None
    return read if isinstance(read, dict) else None


@dataclass(frozen=True, slots=True)
class _MemberValue:
    """The value of a member's key."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    addresses: tuple[str, ...]


def read_member(value: bytes, *, is_announced: bool) -> tuple[str, ...] | None:
    """Return the addresses of a member; None for an invalid value.

    Args:
        value: the value of its key.
        is_announced: whether the key has a lease, so that a host wrote it; a host may announce only a few
            single addresses, and no network.
    """
    try:
        texts = from_json(_MemberValue, json.loads(value)).addresses
        networks = list(map(ipaddress.ip_network, texts))
    except UNREADABLE:
        return None
    are_few = len(texts) <= MOST_ANNOUNCED and all(network.num_addresses == 1 for network in networks)
    is_bounded = are_few or not is_announced
    return tuple(map(_text, networks)) if is_bounded and not any(map(_is_strange, networks)) else None


def _text(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def _is_strange(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Return whether documents would refuse the address: one with a zone, or an IPv4-mapped one."""
    if not isinstance(network, ipaddress.IPv6Network):
        return False
    return network.network_address.scope_id is not None or network.subnet_of(_MAPPED)
