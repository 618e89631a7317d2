"""Say which key holds what (``docs/etcd.md``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sgagent.core.model import NetworkInterface, Snapshot
from sgagent.documents.writing import (
    as_json,
    write_group,
    write_interface,
    write_port_list,
    write_prefix_list,
)
from sgagent.sources.etcd.messages import KeyRange

GROUPS, INTERFACES = "groups", "interfaces"
PREFIX_LISTS, PORT_LISTS = "prefix-lists", "port-lists"
BY_MAC, BY_ADDRESS, MEMBERS = "by-mac", "by-address", "members"
SIGNATURE = "signature"
FLEET = "fleet"

PUBLISHED = (BY_ADDRESS, BY_MAC, GROUPS, INTERFACES, MEMBERS, PORT_LISTS, PREFIX_LISTS, SIGNATURE)
"""The kinds of keys that a publication writes, beside its marker."""


@dataclass(frozen=True, slots=True)
class Layout:
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


def published_keys(snapshot: Snapshot, layout: Layout) -> dict[str, bytes]:
    """Return every key that publishing a snapshot writes, marker and signature apart, with its value."""
    return dict(_keys(snapshot, layout))


def _keys(snapshot: Snapshot, layout: Layout) -> Iterator[tuple[str, bytes]]:
    for group in snapshot.security_groups:
        yield layout.key(GROUPS, group.security_group_id), as_json(write_group(group))
    for prefix_list in snapshot.prefix_lists:
        yield layout.key(PREFIX_LISTS, prefix_list.prefix_list_id), as_json(write_prefix_list(prefix_list))
    for port_list in snapshot.port_lists:
        yield layout.key(PORT_LISTS, port_list.port_list_id), as_json(write_port_list(port_list))
    for interface in snapshot.network_interfaces:
        yield from _keys_of_interface(interface, layout)


def _keys_of_interface(interface: NetworkInterface, layout: Layout) -> Iterator[tuple[str, bytes]]:
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
