"""Read the members of groups, each from a key of its own.

Hosts may announce themselves as members, so what stands in such a key is taken with care: one that can't be
read is left out and told, and so narrows what is allowed; it never holds up everything else.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.sources.etcd.layout import MEMBERS, Layout
from sgagent.sources.etcd.messages import KeyValue

MOST_ANNOUNCED = 64
"""Addresses that a host may announce for one interface."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Members:
    """The addresses of groups' members, and what was wrong with others."""

    by_group: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


_Read: TypeAlias = tuple[int, tuple[str, ...] | None]
"""The revision at which a key was written, and what was read then."""


@dataclass(slots=True)
class MemberReader:
    """Read members, each key once for each time that it is written."""

    layout: Layout
    _known: Mapping[str, _Read] = field(default_factory=dict)
    """By key: of those that there were at the last reading."""

    @property
    def remembered(self) -> int:
        """Return of how many keys it is kept in mind what was read."""
        return len(self._known)

    def read(self, items: Iterable[KeyValue]) -> Members:
        """Return the members that can be read among all keys, by group, in the order of keys."""
        members = Members()
        known: dict[str, _Read] = {}
        for item in items:
            kind, *names = self.layout.parts(item.key)
            if kind != MEMBERS:
                continue
            known[item.key] = _, addresses = self._look(item)
            if addresses is None or len(names) != 2:
                members.problems.append(_not_a_member(item))
            else:
                members.by_group.setdefault(names[0], []).extend(addresses)
        self._known = known
        return members

    def _look(self, item: KeyValue) -> _Read:
        known = self._known.get(item.key)
        if known is not None and known[0] == item.mod_revision:
            return known
        return item.mod_revision, read_member(item.value, is_announced=item.lease != 0)


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
