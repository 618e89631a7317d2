"""Read the members of groups, each from a key of its own.

Hosts may announce themselves as members, so what stands in such a key is taken with care: one that can't be
read is left out and told, and so narrows what is allowed; it never holds up everything else.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.core.remaking import Remade, remake
from sgagent.sources.etcd.folders import Folder, FolderName
from sgagent.sources.etcd.layout import MEMBERS, Layout
from sgagent.sources.etcd.messages import KeyValue

MOST_ANNOUNCED = 64
"""Addresses that a host may announce for one interface."""

_PARTS = 3
"""Of a member's key: the kind, its group, and its name."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one group, and what was wrong with others."""

    read: Remade[KeyValue, tuple[str, ...] | None]
    """What stands in each key: addresses; None where it is not what a member is known by."""

    problems: tuple[Problem, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses of all members, in the order of keys."""
        return tuple(chain.from_iterable(filter(None, self.read.made)))


class MemberReader:
    """Read members, each key once for each time that it is written."""

    def __init__(self, layout: Layout) -> None:
        """Start without having read a member."""
        self._layout = layout
        self._known: Mapping[str, Members] = {}

    def read(self, folders: Mapping[FolderName, Folder]) -> Mapping[str, Members]:
        """Return the members of each group; the very same as before where nothing changed."""
        self._known = {
            name[-1]: self._members(folder, self._known.get(name[-1]))
            for name, folder in folders.items()
            if name[0] == MEMBERS
        }
        return self._known

    def _members(self, folder: Folder, before: Members | None) -> Members:
        read = remake(folder, self._addresses, before.read if before else None)
        if before is not None and read is before.read:
            return before
        pairs = zip(read.given, read.made, strict=True)
        return Members(read, tuple(_not_a_member(item) for item, addresses in pairs if addresses is None))

    def _addresses(self, item: KeyValue) -> tuple[str, ...] | None:
        is_named = len(self._layout.parts(item.key)) == _PARTS
        return read_member(item.value, is_announced=item.lease != 0) if is_named else None


def read_member(value: bytes, *, is_announced: bool) -> tuple[str, ...] | None:
    """Return the addresses of a member; None if the value is not what one is known by.

    Args:
        value: what stands in its key.
        is_announced: whether it vanishes with a lease, so that a host wrote it: such a one is a few single
            addresses and no network.
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
    """Tell whether documents would refuse the address: one in a zone, or IPv4 in IPv6 clothes."""
    return isinstance(network, ipaddress.IPv6Network) and (
        network.network_address.scope_id is not None or network.subnet_of(_MAPPED)
    )


def _not_a_member(item: KeyValue) -> Problem:
    return Problem(
        severity=Severity.WARNING,
        code="not_a_member",
        origin=Origin(file=f"etcd:{item.key}"),
        message="not what a member of a group is known by, so it is none",
        value=item.value.decode(errors="replace"),
        remedy='like {"addresses":["10.0.0.11"]}; single addresses where a host announces itself',
    )
